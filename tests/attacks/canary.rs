//! What the victim owns, and how to find it in bytes that somebody else got, whatever way it was written there.

use std::fmt::Write as _;
use std::io::Read;

/// Random hexadecimal digits that all canaries of one scene begin with: 64 bits, so that no chance hit is one.
const MARK_DIGITS: usize = 16;
/// What a compressed answer may hold before the search gives up on it.
const UNPACKED_BYTES_MAX: u64 = 64 << 20;

/// Makes 128-bit canaries and finds them again.
pub struct Canaries {
    mark: String,
    made: std::cell::Cell<u64>,
    /// The mark as somebody might have encoded it.
    encoded: Vec<(&'static str, String)>,
    /// Names that the server gave: ids, digests, the public parts of keys.
    given: Vec<String>,
}

impl Canaries {
    pub fn new() -> Self {
        let mark = random_hex(MARK_DIGITS);
        Self { encoded: encodings(&mark), mark, made: std::cell::Cell::new(0), given: Vec::new() }
    }

    /// A canary that was not used before: the mark and 64 further bits.
    pub fn fresh(&self) -> String {
        self.made.set(self.made.get() + 1);
        let own = random_hex(32 - MARK_DIGITS);
        format!("{}{own}", self.mark)
    }

    /// How many were planted.
    pub fn made(&self) -> u64 {
        self.made.get()
    }

    /// A name that the server gave to something of the victim's.
    pub fn add_given(&mut self, name: &str) {
        assert!(name.len() > 8, "{name:?} would be found by chance");
        self.given.push(name.to_owned());
        // The bare digits too: a file name or a cache key may drop the prefix.
        if let Some((_, digits)) = name.split_once(['_', '-']).filter(|(_, digits)| digits.len() == 32) {
            self.given.push(digits.to_owned());
        }
    }

    /// The first canary, or name that the server gave, in these bytes. An answer may repeat what was sent: `sent` is
    /// taken out first.
    pub fn found_in(&self, bytes: &[u8], sent: &[&str]) -> Option<String> {
        let unpacked = gunzip(bytes);
        let mut text = String::from_utf8_lossy(unpacked.as_deref().unwrap_or(bytes)).into_owned();
        for sent in sent.iter().filter(|sent| sent.len() > 8) {
            // A mark in its place, so that what stands around it does not become a word.
            text = text.replace(sent, "?");
        }
        self.marked_in(&text).or_else(|| self.given.iter().find(|name| text.contains(name.as_str())).cloned())
    }

    /// The first canary in a text.
    pub fn marked_in(&self, text: &str) -> Option<String> {
        let (how, _) = self.encoded.iter().find(|(_, needle)| text.contains(needle.as_str()))?;
        Some(format!("a canary, {how}"))
    }
}

/// Every way of writing that the search knows. Base64 in its three alignments, without the characters at the edges,
/// which depend on the neighbours.
fn encodings(mark: &str) -> Vec<(&'static str, String)> {
    let each = |write: fn(u8) -> String| mark.bytes().map(write).collect::<String>();
    let mut all = vec![
        ("plain", mark.to_owned()),
        ("in capitals", mark.to_uppercase()),
        ("reversed", mark.chars().rev().collect()),
        ("in hexadecimal", each(|byte| format!("{byte:02x}"))),
        ("in hexadecimal capitals", each(|byte| format!("{byte:02X}"))),
        ("URL-encoded", each(|byte| format!("%{byte:02X}"))),
        ("URL-encoded in small letters", each(|byte| format!("%{byte:02x}"))),
        ("JSON-escaped", each(|byte| format!("\\u{byte:04x}"))),
        ("JSON-escaped in capitals", each(|byte| format!("\\u{byte:04X}"))),
        ("as numbers", mark.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(",")),
        ("in UTF-16", mark.chars().flat_map(|letter| [letter, '\0']).take(mark.len() * 2 - 1).collect()),
    ];
    for (how, skipped) in [("in base64", 0), ("in base64, one byte on", 1), ("in base64, two bytes on", 2)] {
        let text = base64(&[&vec![0; skipped], mark.as_bytes()].concat());
        let whole = (mark.len() + skipped) / 3 * 4;
        all.push((how, text[(skipped * 8).div_ceil(6)..whole].to_owned()));
    }
    all
}

/// Base64 without padding; a mark's own bytes give no character in which the two alphabets differ.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let group = three.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..=three.len() {
            text.push(char::from(ALPHABET[(group >> (18 - 6 * place) & 63) as usize]));
        }
    }
    text
}

/// What a tar.gz holds; nothing where the bytes are none.
fn gunzip(bytes: &[u8]) -> Option<Vec<u8>> {
    bytes.starts_with(&[0x1f, 0x8b]).then(|| {
        let mut unpacked = Vec::new();
        // What a damaged archive holds up to the damage is searched too.
        let _ = flate2::read::MultiGzDecoder::new(bytes).take(UNPACKED_BYTES_MAX).read_to_end(&mut unpacked);
        unpacked
    })
}

fn random_hex(digits: usize) -> String {
    let mut text = String::new();
    while text.len() < digits {
        let number = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), text.len());
        write!(text, "{number:016x}").expect("a string takes all");
    }
    text.truncate(digits);
    text
}

#[test]
fn canaries_are_found_however_they_are_written() {
    let mut canaries = Canaries::new();
    let canary = canaries.fresh();
    assert_eq!(canary.len(), 32, "128 bits");
    assert_ne!(canary, canaries.fresh());
    for before in ["", "a", "ab", "abc"] {
        let text = format!("{before}{canary}zz");
        let bytes = text.as_bytes();
        let joined = |format: fn(&u8) -> String| bytes.iter().map(format).collect::<String>().into_bytes();
        let written = [
            bytes.to_vec(),
            base64(bytes).into_bytes(),
            joined(|byte| format!("{byte:02x}")),
            joined(|byte| format!("%{byte:02X}")),
            joined(|byte| format!("\\u{byte:04x}")),
            bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(",").into_bytes(),
            text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            crate::support::Archive::new().file("a.py", bytes).gzip(),
        ];
        for bytes in written {
            assert!(canaries.found_in(&bytes, &[]).is_some(), "{:?}", String::from_utf8_lossy(&bytes));
        }
        assert_eq!(canaries.found_in(bytes, &[&text]), None, "what was sent may be said back");
    }
    assert_eq!(canaries.found_in(Canaries::new().fresh().as_bytes(), &[]), None, "another scene's");
    canaries.add_given("src_0123456789abcdef0123456789abcdef");
    assert!(canaries.found_in(b"blobs/0123456789abcdef0123456789abcdef/x", &[]).is_some());
}
