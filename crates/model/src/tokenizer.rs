//! `tokenizer.json` of a Hugging Face folder: text to ids and back, with the library that wrote the format.
//!
//! Text that strangers wrote must never steer the model: [`Tokenizer::encode_plain`] reads the strings of control
//! tokens as the characters they are. A control token is one that the file marks as special, or any added token in
//! angle brackets: Qwen's files leave their fill-in-the-middle tokens unmarked.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::ModelError;
use crate::config::read_capped;
use crate::digest::FieldHasher;

/// Bytes of a `tokenizer.json`; those of vocabularies of 250,000 tokens have under 40 MB.
const TOKENIZER_BYTES_MAX: u64 = 256 << 20;

/// The ids of the fill-in-the-middle tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FimTokens {
    /// Before the text left of the cursor.
    pub prefix: u32,
    /// Before the text right of the cursor.
    pub suffix: u32,
    /// Before the text to write.
    pub middle: u32,
    /// Fills up rows of a batch; not every model has it.
    pub pad: Option<u32>,
}

/// Text to ids and back.
pub struct Tokenizer {
    marked: tokenizers::Tokenizer,
    plain: tokenizers::Tokenizer,
    bytes: Arc<TokenBytes>,
    added: HashMap<String, u32>,
    byte_level: bool,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}

impl Tokenizer {
    pub(crate) fn load(folder: &Path, hasher: &mut FieldHasher) -> Result<Self, ModelError> {
        let path = folder.join("tokenizer.json");
        let advice = "copy it from where the model came from; a model that has only tokenizer.model or vocab.json \
            gets one from transformers' AutoTokenizer.save_pretrained";
        let content = read_capped(&path, TOKENIZER_BYTES_MAX, advice)?;
        hasher.field("tokenizer.json", &content);
        Self::parse(&path.display().to_string(), &content)
    }

    /// Reads the content of a `tokenizer.json`; `file` names it in errors.
    ///
    /// # Errors
    /// Whatever the tokenizer library refuses.
    pub fn parse(file: &str, content: &[u8]) -> Result<Self, ModelError> {
        let mut json: Value =
            serde_json::from_slice(content).map_err(|source| ModelError::Json { file: file.to_owned(), source })?;
        if !json.is_object() {
            let problem = "it is not a JSON object; is it a tokenizer of the tokenizers library?".to_owned();
            return Err(ModelError::Tokenizer { file: file.to_owned(), problem });
        }
        let byte_level = has_byte_level_decoder(&json["decoder"]);
        // Windows and paddings of the file's author would cut and fill our texts.
        json["truncation"] = Value::Null;
        json["padding"] = Value::Null;
        let marked = build(file, &json)?;
        for token in json.get_mut("added_tokens").and_then(Value::as_array_mut).into_iter().flatten() {
            if is_control(token) {
                token["special"] = Value::Bool(true);
            }
        }
        let mut plain = build(file, &json)?;
        plain.set_encode_special_tokens(true);
        let mut added = HashMap::new();
        let mut control = Vec::new();
        for token in json["added_tokens"].as_array().into_iter().flatten() {
            let Some(content) = token["content"].as_str() else { continue };
            let Some(id) = marked.token_to_id(content) else { continue };
            added.insert(content.to_owned(), id);
            if is_control(token) {
                control.push(id);
            }
        }
        let bytes = TokenBytes::new(&marked, &added, control, byte_level)
            .map_err(|problem| ModelError::Tokenizer { file: file.to_owned(), problem })?;
        Ok(Self { marked, plain, bytes: Arc::new(bytes), added, byte_level })
    }

    /// Every id that the tokenizer can make must have a row in the embedding.
    pub(crate) fn check_fits(&self, folder: &Path, vocab_size: usize) -> Result<(), ModelError> {
        if self.vocab_size() <= vocab_size {
            return Ok(());
        }
        Err(ModelError::Tokenizer {
            file: folder.join("tokenizer.json").display().to_string(),
            problem: format!(
                "it makes ids up to {}, config.json has a vocabulary of {vocab_size}; do they belong together?",
                self.vocab_size() - 1
            ),
        })
    }

    /// Ids of `text`; the strings of special tokens become those tokens, and what the file's template adds around a
    /// text (a beginning-of-text token, in some models) is added.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        self.run(&self.marked, text, true)
    }

    /// Ids of `text` as nothing but text: no control token comes out, whatever the text says, and nothing is added.
    pub fn encode_plain(&self, text: &str) -> Vec<u32> {
        let ids = self.run(&self.plain, text, false);
        if !ids.iter().any(|&id| self.bytes.is_control(id)) {
            return ids;
        }
        // A vocabulary can hold the string of a control token as an ordinary word. Cut such words into characters.
        let mut plain = Vec::with_capacity(ids.len() + 8);
        for id in ids {
            if !self.bytes.is_control(id) {
                plain.push(id);
                continue;
            }
            for character in self.token_text(id).chars() {
                let ids = self.run(&self.plain, character.encode_utf8(&mut [0; 4]), false);
                plain.extend(ids.into_iter().filter(|&id| !self.bytes.is_control(id)));
            }
        }
        plain
    }

    fn run(&self, tokenizer: &tokenizers::Tokenizer, text: &str, template: bool) -> Vec<u32> {
        match tokenizer.encode_fast(text, template) {
            Ok(encoding) => encoding.get_ids().to_vec(),
            // Only a word-level vocabulary without an unknown-word token can fail, and `TokenBytes` refuses those.
            Err(_) => Vec::new(),
        }
    }

    /// Text of `ids`, without control tokens. Bytes that are not UTF-8 become U+FFFD; unknown ids give nothing.
    pub fn decode(&self, ids: &[u32]) -> String {
        let ids = ids.iter().copied().filter(|&id| !self.bytes.is_control(id));
        if self.byte_level {
            let bytes: Vec<u8> = ids.flat_map(|id| self.bytes.get(id).iter().copied()).collect();
            return String::from_utf8_lossy(&bytes).into_owned();
        }
        self.marked.decode(&ids.collect::<Vec<_>>(), false).unwrap_or_default()
    }

    /// One more than the highest id.
    pub fn vocab_size(&self) -> usize {
        self.bytes.len()
    }

    /// Id of an added token by its exact string, such as `<|endoftext|>`.
    pub fn special(&self, name: &str) -> Option<u32> {
        self.added.get(name).copied()
    }

    /// The fill-in-the-middle tokens, where the model has them.
    pub fn fim(&self) -> Option<FimTokens> {
        let named = |open: &str, close: &str| {
            let token = |name: &str| self.special(&format!("{open}fim_{name}{close}"));
            Some(FimTokens {
                prefix: token("prefix")?,
                suffix: token("suffix")?,
                middle: token("middle")?,
                pad: token("pad"),
            })
        };
        named("<|", "|>").or_else(|| named("<", ">"))
    }

    /// The token before a repository's name.
    pub fn repo_name(&self) -> Option<u32> {
        self.special("<|repo_name|>").or_else(|| self.special("<repo_name>"))
    }

    /// The token before each file of a repository.
    pub fn file_sep(&self) -> Option<u32> {
        self.special("<|file_sep|>").or_else(|| self.special("<file_sep>"))
    }

    /// Text of one token, control tokens included; U+FFFD where its bytes are a part of a character.
    pub fn token_text(&self, id: u32) -> String {
        String::from_utf8_lossy(self.bytes.get(id)).into_owned()
    }

    /// Bytes of one token, control tokens included; nothing for an unknown id.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        self.bytes.get(id).to_vec()
    }

    /// Whether `id` is a control token, which text can never contain.
    pub fn is_control(&self, id: u32) -> bool {
        self.bytes.is_control(id)
    }

    pub(crate) fn bytes(&self) -> Arc<TokenBytes> {
        Arc::clone(&self.bytes)
    }
}

fn build(file: &str, json: &Value) -> Result<tokenizers::Tokenizer, ModelError> {
    tokenizers::Tokenizer::from_bytes(json.to_string())
        .map_err(|error| ModelError::Tokenizer { file: file.to_owned(), problem: error.to_string() })
}

fn is_control(token: &Value) -> bool {
    let bracketed = token["content"].as_str().is_some_and(|text| text.starts_with('<') && text.ends_with('>'));
    bracketed || token["special"] == Value::Bool(true)
}

fn has_byte_level_decoder(decoder: &Value) -> bool {
    match decoder["type"].as_str() {
        Some("ByteLevel") => true,
        Some("Sequence") => {
            decoder["decoders"].as_array().is_some_and(|decoders| decoders.iter().any(has_byte_level_decoder))
        }
        _ => false,
    }
}

/// The bytes that each id stands for, in one table.
#[derive(Debug)]
pub(crate) struct TokenBytes {
    bytes: Vec<u8>,
    ends: Vec<u32>,     // (ids), where each token's bytes end
    control: Vec<bool>, // (ids)
}

impl TokenBytes {
    fn new(
        tokenizer: &tokenizers::Tokenizer,
        added: &HashMap<String, u32>,
        control: Vec<u32>,
        byte_level: bool,
    ) -> Result<Self, String> {
        if matches!(tokenizer.get_model(), tokenizers::ModelWrapper::WordLevel(_)) {
            return Err("word-level vocabularies are not supported; use a model with a byte-level one".to_owned());
        }
        let alphabet = byte_alphabet();
        let mut tokens: Vec<(u32, String)> =
            tokenizer.get_vocab(true).into_iter().map(|(text, id)| (id, text)).collect();
        tokens.sort_unstable();
        let mut table = Self { bytes: Vec::new(), ends: Vec::new(), control: Vec::new() };
        for (id, text) in tokens {
            // Ids that the vocabulary skips stand for nothing.
            if (id as usize) < table.ends.len() {
                return Err(format!("two tokens share the id {id}"));
            }
            table.ends.resize(id as usize, table.bytes.len() as u32);
            if added.get(&text) == Some(&id) {
                table.bytes.extend_from_slice(text.as_bytes());
            } else if byte_level {
                push_byte_level(&mut table.bytes, &text, &alphabet);
            } else {
                push_sentence_piece(&mut table.bytes, &text);
            }
            table.ends.push(table.bytes.len() as u32);
        }
        table.control.resize(table.ends.len(), false);
        for id in control {
            table.control[id as usize] = true;
        }
        Ok(table)
    }

    pub(crate) fn get(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else { return &[] };
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[start as usize..end as usize]
    }

    pub(crate) fn is_control(&self, id: u32) -> bool {
        self.control.get(id as usize).copied().unwrap_or(false)
    }

    fn len(&self) -> usize {
        self.ends.len()
    }
}

/// GPT-2's printable characters for the 256 bytes: printable Latin-1 stands for itself, the rest for U+0100 onwards.
fn byte_alphabet() -> HashMap<char, u8> {
    let mut moved = 0x100..;
    (0..=u8::MAX)
        .map(|byte| {
            let itself = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
            let code = if itself { u32::from(byte) } else { moved.next().unwrap_or_default() };
            (char::from_u32(code).unwrap_or_default(), byte)
        })
        .collect()
}

fn push_byte_level(out: &mut Vec<u8>, token: &str, alphabet: &HashMap<char, u8>) {
    let start = out.len();
    for character in token.chars() {
        match alphabet.get(&character) {
            Some(&byte) => out.push(byte),
            // The library's decoder takes a token with any foreign character as it stands.
            None => {
                out.truncate(start);
                out.extend_from_slice(token.as_bytes());
                return;
            }
        }
    }
}

/// SentencePiece: `▁` is a space and `<0x0A>` a byte.
fn push_sentence_piece(out: &mut Vec<u8>, token: &str) {
    let byte = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    match byte.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
        Some(byte) => out.push(byte),
        None => out.extend_from_slice(token.replace('▁', " ").as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alphabet_covers_every_byte_once() {
        let alphabet = byte_alphabet();
        assert_eq!(alphabet.len(), 256);
        assert_eq!((alphabet[&'Ġ'], alphabet[&'Ċ'], alphabet[&'a'], alphabet[&'é']), (b' ', b'\n', b'a', 0xe9));
    }

    #[test]
    fn pieces_become_bytes() {
        let check = |token: &str, expected: &[u8]| {
            let mut out = Vec::new();
            push_sentence_piece(&mut out, token);
            assert_eq!(out, expected, "{token}");
        };
        check("▁the", b" the");
        check("<0x0A>", b"\n");
        check("<0xZZ>", b"<0xZZ>");
    }
}
