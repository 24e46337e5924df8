//! Ids to text, one at a time: releases only complete UTF-8, since one character may span several tokens.

use std::sync::Arc;

use crate::Tokenizer;
use crate::tokenizer::TokenBytes;

/// Bytes of an incomplete UTF-8 character at most; more are never held back.
const INCOMPLETE_BYTES_MAX: usize = 3;

/// An incremental detokenizer. Control tokens give no text. Bytes that can never become UTF-8 give U+FFFD, exactly as
/// [`String::from_utf8_lossy`] would over the whole.
#[derive(Debug, Clone)]
pub struct TextStream {
    bytes: Arc<TokenBytes>,
    pending: Vec<u8>, // the beginning of one character
}

impl TextStream {
    /// An empty stream.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        Self { bytes: tokenizer.bytes(), pending: Vec::new() }
    }

    /// The text that `id` completes; may be empty.
    pub fn push(&mut self, id: u32) -> String {
        if !self.bytes.is_control(id) {
            self.pending.extend_from_slice(self.bytes.get(id));
        }
        let (text, incomplete) = lossy_prefix(&self.pending);
        debug_assert!(incomplete <= INCOMPLETE_BYTES_MAX);
        self.pending.drain(..self.pending.len() - incomplete);
        text
    }

    /// What is left at the end of the sequence: U+FFFD for a character that was never completed, mostly nothing.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }
}

/// The text of `bytes` but for an incomplete character at its end, and the length of that.
fn lossy_prefix(bytes: &[u8]) -> (String, usize) {
    let mut text = String::with_capacity(bytes.len());
    let mut chunks = bytes.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        text.push_str(chunk.valid());
        let invalid = chunk.invalid();
        let could_continue =
            chunks.peek().is_none() && std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
        if could_continue {
            return (text, invalid.len());
        }
        if !invalid.is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    (text, 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(bytes: &[u8], text: &str, incomplete: usize) {
        assert_eq!(lossy_prefix(bytes), (text.to_owned(), incomplete), "{bytes:?}");
    }

    #[test]
    fn incomplete_characters_wait() {
        check(b"", "", 0);
        check(b"abc", "abc", 0);
        check("aé".as_bytes(), "aé", 0);
        check(&"aé".as_bytes()[..2], "a", 1);
        check(&"a😀".as_bytes()[..4], "a", 3);
        check(b"a\xffb", "a\u{fffd}b", 0);
        check(b"a\x80", "a\u{fffd}", 0);
        check(b"\xe2\x28", "\u{fffd}(", 0);
        check(b"\xff\xe2\x82", "\u{fffd}", 2);
    }

    proptest! {
        #[test]
        fn any_cuts_of_any_bytes_give_the_lossy_whole(
            parts in prop::collection::vec(
                prop_oneof![prop::collection::vec(any::<u8>(), 0..4), any::<char>().prop_map(|c| c.to_string().into_bytes())],
                0..20,
            ),
            cut in 1usize..4,
        ) {
            let whole = parts.concat();
            let (mut text, mut pending) = (String::new(), Vec::new());
            for piece in whole.chunks(cut) {
                pending.extend_from_slice(piece);
                let (released, incomplete) = lossy_prefix(&pending);
                prop_assert!(incomplete <= INCOMPLETE_BYTES_MAX);
                text.push_str(&released);
                pending.drain(..pending.len() - incomplete);
            }
            text.push_str(&String::from_utf8_lossy(&pending));
            prop_assert_eq!(text, String::from_utf8_lossy(&whole));
        }
    }
}
