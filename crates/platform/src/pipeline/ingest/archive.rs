//! An uploaded tar.gz → the stored form. The archive is hostile until it is packed anew: one unsafe entry refuses the
//! whole upload, and nothing of it is ever written under a name that it chose.

use std::cell::Cell;
use std::io::{self, Read};

use atelier_domain::limits;
use flate2::read::MultiGzDecoder;
use tar::EntryType;

use super::SourceRefused;
use super::packer::{MANIFEST_NAME, Packed, Packer};
use super::rules::{self, Rejection};

/// Characters of an entry's path that an error message repeats.
const SHOWN_PATH_CHARS: usize = 120;

/// Reads an upload and packs what may be learned from.
///
/// # Errors
/// When it is no tar.gz, is damaged, too large, unsafe, empty or without text.
pub fn pack_archive(upload: &[u8]) -> Result<Packed, SourceRefused> {
    if upload.is_empty() {
        return Err(SourceRefused::Empty);
    }
    if upload.len() > limits::SOURCE_ARCHIVE_BYTES_MAX {
        return Err(SourceRefused::TooLarge { bytes_max: limits::SOURCE_ARCHIVE_BYTES_MAX });
    }
    let exceeded = Cell::new(None);
    let bounded = Bounded {
        inner: MultiGzDecoder::new(upload),
        compressed_bytes: upload.len() as u64,
        unpacked_bytes: 0,
        exceeded: &exceeded,
    };
    // A limit that was hit shows as a read error; what matters is which limit.
    pack_entries(bounded).map_err(|refused| match (exceeded.take(), refused) {
        (Some(limit), SourceRefused::Damaged(_)) => limit,
        (_, refused) => refused,
    })
}

fn pack_entries(reader: impl Read) -> Result<Packed, SourceRefused> {
    let mut packer = Packer::new();
    let mut archive = tar::Archive::new(reader);
    let mut content = Vec::new();
    for entry in archive.entries().map_err(SourceRefused::Damaged)? {
        let mut entry = entry.map_err(SourceRefused::Damaged)?;
        packer.count_entry()?;
        let path = safe_path(&entry.path_bytes())?;
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {}
            EntryType::Directory | EntryType::XGlobalHeader => continue,
            EntryType::Symlink | EntryType::Link => {
                return Err(SourceRefused::UnsafeEntry { path: shown(&entry.path_bytes()), what: "is a link" });
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                return Err(SourceRefused::UnsafeEntry {
                    path: shown(&entry.path_bytes()),
                    what: "is a device or a pipe",
                });
            }
            _ => {
                return Err(SourceRefused::UnsafeEntry {
                    path: shown(&entry.path_bytes()),
                    what: "is neither a file nor a folder",
                });
            }
        }
        let Some(path) = path else {
            packer.reject(&shown(&entry.path_bytes()), Rejection::PathNotUtf8);
            continue;
        };
        if path.is_empty() {
            return Err(SourceRefused::UnsafeEntry {
                path: shown(&entry.path_bytes()),
                what: "is a file without a name",
            });
        }
        let is_manifest = path == MANIFEST_NAME;
        if let Some(reason) = rules::reject_path(&path).filter(|_| !is_manifest) {
            packer.reject(&path, reason);
            continue;
        }
        if entry.size() > limits::SOURCE_FILE_BYTES_MAX as u64 {
            packer.reject(&path, Rejection::TooLarge);
            continue;
        }
        content.clear();
        entry.read_to_end(&mut content).map_err(SourceRefused::Damaged)?;
        if is_manifest {
            packer.adopt(&content);
        } else {
            packer.offer(&path, &content)?;
        }
    }
    // Reading to the end checks the compressed stream's checksum.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(SourceRefused::Damaged)?;
    packer.finish()
}

/// The path inside the source, its parts joined by `/`; none if it is safe but not UTF-8.
fn safe_path(bytes: &[u8]) -> Result<Option<String>, SourceRefused> {
    let refuse = |what| Err(SourceRefused::UnsafeEntry { path: shown(bytes), what });
    if bytes.contains(&0) {
        return refuse("has a NUL byte in its path");
    }
    if bytes.len() > limits::SOURCE_PATH_BYTES_MAX {
        return refuse("has a path that is too long");
    }
    let has_drive = bytes.len() >= 2 && bytes[0].is_ascii_alphabetic() && bytes[1] == b':';
    if bytes.starts_with(b"/") || bytes.starts_with(b"\\") || has_drive {
        return refuse("has an absolute path");
    }
    // Backslashes part folders on the system that may have packed it.
    if bytes.split(|byte| matches!(byte, b'/' | b'\\')).any(|part| part == b"..") {
        return refuse("leads out of the archive by '..'");
    }
    let Ok(path) = std::str::from_utf8(bytes) else { return Ok(None) };
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    Ok(Some(parts.join("/")))
}

/// A path for a message: bounded, and without characters that could play tricks on a terminal.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(SHOWN_PATH_CHARS).flat_map(char::escape_debug).collect()
}

/// Unpacked bytes, counted: an archive that unpacks without end stops here.
struct Bounded<'a, R> {
    inner: R,
    compressed_bytes: u64,
    unpacked_bytes: u64,
    exceeded: &'a Cell<Option<SourceRefused>>,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.unpacked_bytes += count as u64;
        let limit = if self.unpacked_bytes > limits::SOURCE_UNPACKED_BYTES_MAX as u64 {
            Some(SourceRefused::TooLarge { bytes_max: limits::SOURCE_UNPACKED_BYTES_MAX })
        } else if self.unpacked_bytes > limits::SOURCE_COMPRESSION_FREE_BYTES
            && self.unpacked_bytes / limits::SOURCE_COMPRESSION_RATIO_MAX > self.compressed_bytes
        {
            Some(SourceRefused::RatioTooHigh { ratio_max: limits::SOURCE_COMPRESSION_RATIO_MAX })
        } else {
            None
        };
        if limit.is_some() {
            self.exceeded.set(limit);
            return Err(io::Error::other("a limit of unpacking"));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::pipeline::ingest::unpack;

    const CODE: &[u8] = b"def f(x):\n    return x + 1\n";

    /// One tar entry with exactly this path and type, whatever the tar crate thinks of it.
    fn entry(path: &[u8], kind: EntryType, content: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path);
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        if matches!(kind, EntryType::Symlink | EntryType::Link) {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    fn file(path: &str, content: &[u8]) -> Vec<u8> {
        entry(path.as_bytes(), EntryType::Regular, content)
    }

    /// A pax header that gives the next entry a path.
    fn pax_path(path: &[u8]) -> Vec<u8> {
        let body_len = b" path=".len() + path.len() + 1;
        let mut length = body_len + 1;
        while length != body_len + length.to_string().len() {
            length = body_len + length.to_string().len();
        }
        let mut record = format!("{length} path=").into_bytes();
        record.extend(path);
        record.push(b'\n');
        entry(b"pax", EntryType::XHeader, &record)
    }

    fn gzip(parts: &[Vec<u8>]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        parts.iter().for_each(|part| encoder.write_all(part).unwrap());
        encoder.write_all(&[0; 1024]).unwrap();
        encoder.finish().unwrap()
    }

    fn check(parts: &[Vec<u8>], expected: Result<&[&str], &str>) {
        check_bytes(&gzip(parts), expected);
    }

    fn check_bytes(upload: &[u8], expected: Result<&[&str], &str>) {
        match (pack_archive(upload), expected) {
            (Ok(packed), Ok(paths)) => {
                let (files, manifest) = unpack(&packed.archive).unwrap();
                assert_eq!(files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), paths);
                assert_eq!(manifest, packed.manifest);
                assert_eq!(manifest.files, paths.len());
            }
            (Err(refused), Err(words)) => {
                let message = refused.to_string();
                assert!(message.contains(words), "{message:?} lacks {words:?}");
            }
            (got, expected) => panic!("{got:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn honest_archives_are_packed_anew() {
        check(&[file("b.py", CODE), file("./a/c.py", CODE), file("x.bin", b"\0\x01")], Ok(&["a/c.py", "b.py"]));
        check(
            &[entry(b"pax_global_header", EntryType::XGlobalHeader, b"52 comment=x"), file("a.py", CODE)],
            Ok(&["a.py"]),
        );
        check(&[entry(b"src/", EntryType::Directory, b""), file("src/a.py", CODE)], Ok(&["src/a.py"]));
        check(&[file("a.py", CODE), file("a.py", b"other = 1\n")], Ok(&["a.py"]));
        check(&[file("a.py", CODE), entry(b"b\xff.py", EntryType::Regular, CODE)], Ok(&["a.py"]));
        let long = format!("{}/a.py", "d".repeat(200));
        check(&[pax_path(long.as_bytes()), file("short", CODE)], Ok(&[&long]));
    }

    #[test]
    fn one_unsafe_entry_refuses_the_whole() {
        let good = || file("a.py", CODE);
        check(&[good(), file("../evil.py", CODE)], Err("'..'"));
        check(&[good(), file("a/../../evil.py", CODE)], Err("'..'"));
        check(&[good(), file("a\\..\\evil.py", CODE)], Err("'..'"));
        check(&[good(), file("/etc/cron.d/evil.py", CODE)], Err("absolute path"));
        check(&[good(), file("C:\\evil.py", CODE)], Err("absolute path"));
        check(&[good(), entry(b"passwd.py", EntryType::Symlink, b"")], Err("is a link"));
        check(&[good(), entry(b"passwd.py", EntryType::Link, b"")], Err("is a link"));
        check(&[good(), entry(b"null.py", EntryType::Char, b"")], Err("device"));
        check(&[good(), entry(b"disk.py", EntryType::Block, b"")], Err("device"));
        check(&[good(), entry(b"pipe.py", EntryType::Fifo, b"")], Err("pipe"));
        check(&[good(), entry(b"odd.py", EntryType::new(b'Z'), b"")], Err("neither a file nor a folder"));
        check(&[good(), file(".", CODE)], Err("without a name"));
        check(&[good(), file("./.", CODE)], Err("without a name"));
        check(&[good(), pax_path(b"./"), file("x", CODE)], Err("without a name"));
        check(&[good(), pax_path(b"a\0b.py"), file("x", CODE)], Err("NUL"));
        check(&[good(), pax_path(&[b'a'; 2_000]), file("x", CODE)], Err("too long"));
        check(&[good(), pax_path(b"../../evil.py"), file("x", CODE)], Err("'..'"));
    }

    #[test]
    fn what_is_no_archive_says_so() {
        check_bytes(b"", Err("empty"));
        check_bytes(b"PK\x03\x04 a zip file", Err("tar.gz"));
        check_bytes(&gzip(&[b"hello, this is no tar".to_vec()]), Err("tar.gz"));
        let mut random = blake3::Hasher::new().finalize_xof();
        let mut noise = vec![0; 60_000];
        random.fill(&mut noise);
        let whole = gzip(&[file("a.py", CODE), file("b.py", &noise)]);
        check_bytes(&whole[..whole.len() / 2], Err("tar.gz"));
        let mut flipped = whole.clone();
        let last = flipped.len() - 6;
        flipped[last] ^= 1;
        check_bytes(&flipped, Err("tar.gz"));
    }

    #[test]
    fn what_was_packed_by_us_packs_to_the_same() {
        let first = pack_archive(&gzip(&[file("a.py", CODE), file("b.bin", b"\0"), file("c.md", b"# c")])).unwrap();
        let again = pack_archive(&first.archive).unwrap();
        assert_eq!((again.archive, again.manifest), (first.archive, first.manifest));
    }

    #[test]
    fn nothing_to_learn_from_says_why() {
        check(&[], Err("empty"));
        check(&[entry(b"src/", EntryType::Directory, b"")], Err("empty"));
        check(
            &[file("a.png", b"\x89PNG\0"), file("b.py", b"\xff\xfe"), file("README.md", b"# x")],
            Err("1 binary, 1 not UTF-8, 1 prose or data"),
        );
    }

    #[test]
    fn archives_that_unpack_without_end_stop_early() {
        let zeros = vec![0; 32 << 20];
        check(&[file("zeros.py", &zeros)], Err("times"));
    }
}
