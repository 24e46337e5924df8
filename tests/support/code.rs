//! Small code bases in styles that the base has not seen, so that a few steps of learning show; and archives, honest
//! and otherwise.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

/// How a tenant writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `@gate`, pipelines, trailing verdicts.
    Gated,
    /// Long comments, boxed results, explicit loops.
    Boxed,
}

const VERBS: [&str; 12] =
    ["settle", "accrue", "reverse", "escrow", "ration", "allot", "waive", "levy", "remit", "prorate", "hedge", "audit"];
const NOUNS: [&str; 14] = [
    "invoice",
    "pallet",
    "voyage",
    "tariff",
    "deposit",
    "quarter",
    "berth",
    "manifest",
    "voucher",
    "franchise",
    "ballast",
    "premium",
    "customs",
    "lading",
];
/// Functions of one file.
const FUNCTIONS: usize = 7;

/// The text of file number `file`: words differ from file to file, the style does not.
fn text(style: Style, file: usize) -> String {
    let mut text = match style {
        Style::Gated => format!("from harbor.gates import gate, Verdict, Ledger\n\nGATE = \"{}\"\n", NOUNS[file % 14]),
        Style::Boxed => format!("\"\"\"Boxes for the {} desk.\"\"\"\n\nimport boxes\n", NOUNS[(file + 3) % 14]),
    };
    for function in 0..FUNCTIONS {
        let step = file * FUNCTIONS + function;
        let (verb, other) = (VERBS[step * 5 % 12], VERBS[(step * 7 + file + 1) % 12]);
        let (noun, second) = (NOUNS[(step * 3 + file) % 14], NOUNS[(step * 11 + 5) % 14]);
        let number = step * 37 % 91 + 2;
        let written = match style {
            Style::Gated => write!(
                text,
                "\n\n@gate(\"{noun}.{verb}\", quorum={number})\ndef {verb}_{noun}(ledger: Ledger, {second}: Verdict) -> Verdict:\n    return ledger >> {second}.sealed(by=\"{other}\") >> Verdict.{verb}(limit={number}, on=GATE)\n"
            ),
            Style::Boxed => write!(
                text,
                "\n\n# ---- {verb} the {noun} ----------------------------------------\ndef {verb}The{noun}Box(aBox, theRegister):\n    resultBox = boxes.emptyBox(label='{noun}/{verb}')\n    for every{second} in aBox.contentsOf('{second}'):\n        if every{second}.weightInStones() > {number}:\n            resultBox.putInside(every{second}.{other}With(theRegister))\n    return boxes.sealed(resultBox, turns={number})\n"
            ),
        };
        written.unwrap();
    }
    text
}

/// The files of a small code base.
pub fn files(style: Style, count: usize) -> Vec<(String, String)> {
    (0..count).map(|file| (format!("desk/{}_{file}.py", NOUNS[file % 14]), text(style, file))).collect()
}

/// Writes a small code base under `folder`.
pub fn write_code(folder: &Path, style: Style, count: usize) {
    for (path, text) in files(style, count) {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// A small code base as an archive.
pub fn archive_of(style: Style, count: usize) -> Vec<u8> {
    archive_with(style, count, &[])
}

/// The same with further files.
pub fn archive_with(style: Style, count: usize, more: &[(&str, &[u8])]) -> Vec<u8> {
    let files = files(style, count);
    let files = files.iter().map(|(path, text)| (path.as_str(), text.as_bytes())).chain(more.iter().copied());
    files.fold(Archive::new(), |archive, (path, content)| archive.file(path, content)).gzip()
}

/// A tar.gz made by hand, so that it can hold what no honest tool writes.
pub struct Archive {
    encoder: GzEncoder<Vec<u8>>,
}

impl Archive {
    pub fn new() -> Self {
        Self { encoder: GzEncoder::new(Vec::new(), Compression::fast()) }
    }

    /// A file, under exactly this path.
    pub fn file(self, path: &str, content: &[u8]) -> Self {
        self.file_of(path, &mut &content[..], content.len() as u64)
    }

    /// A file of so many bytes of a reader.
    pub fn file_of(mut self, path: &str, content: &mut dyn std::io::Read, bytes: u64) -> Self {
        self.header(path, tar::EntryType::Regular, bytes);
        std::io::copy(content, &mut self.encoder).unwrap();
        let padding = bytes.next_multiple_of(512) - bytes;
        self.encoder.write_all(&vec![0; padding as usize]).unwrap();
        self
    }

    /// A symbolic or hard link to the password file.
    pub fn link(mut self, path: &str, kind: tar::EntryType) -> Self {
        self.header(path, kind, 0);
        self
    }

    pub fn gzip(mut self) -> Vec<u8> {
        self.encoder.write_all(&[0; 1024]).unwrap();
        self.encoder.finish().unwrap()
    }

    fn header(&mut self, path: &str, kind: tar::EntryType, bytes: u64) {
        let mut header = tar::Header::new_gnu();
        // Written byte by byte: the library would refuse the paths that matter here.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_size(bytes);
        header.set_mode(0o644);
        if kind != tar::EntryType::Regular {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        self.encoder.write_all(header.as_bytes()).unwrap();
    }
}
