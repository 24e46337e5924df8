//! Parity with the reference tokenizer, and text that must not become control tokens.

use atelier_model::{FimTokens, TextStream, Tokenizer};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::Value;

use crate::support::{base_folder, golden_folder};

#[derive(Deserialize)]
struct Ids {
    lines: Vec<Vec<u32>>,
    plain: Vec<PlainLine>,
    texts: Vec<Text>,
}

#[derive(Deserialize)]
struct PlainLine {
    line: usize,
    ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    ids: Vec<u32>,
    plain: Vec<u32>,
}

fn base_json() -> Value {
    let bytes = std::fs::read(base_folder().join("tokenizer.json")).expect("tokenizer.json");
    serde_json::from_slice(&bytes).expect("tokenizer.json")
}

fn parse(json: &Value) -> Tokenizer {
    Tokenizer::parse("tokenizer.json", json.to_string().as_bytes()).expect("a good tokenizer")
}

fn stream(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut stream = TextStream::new(tokenizer);
    let mut text: String = ids.iter().map(|&id| stream.push(id)).collect();
    text.push_str(&stream.finish());
    text
}

fn check(tokenizer: &Tokenizer, text: &str, ids: &[u32], plain: &[u32]) {
    assert_eq!(tokenizer.encode(text), ids, "{text:?}");
    assert_eq!(tokenizer.encode_plain(text), plain, "plain {text:?}");
    assert_eq!(tokenizer.decode(plain), text);
    assert_eq!(stream(tokenizer, plain), text);
}

#[test]
fn every_line_has_the_ids_of_the_reference() {
    let tokenizer = parse(&base_json());
    let folder = golden_folder("tokenizer");
    let text = std::fs::read_to_string(folder.join("lines.txt")).expect("lines.txt");
    let ids: Ids =
        serde_json::from_slice(&std::fs::read(folder.join("ids.json")).expect("ids.json")).expect("ids.json");
    let lines: Vec<&str> = text.strip_suffix('\n').expect("a last line feed").split('\n').collect();
    assert!(lines.len() >= 1_000 && lines.len() == ids.lines.len());
    for (index, (line, expected)) in lines.iter().zip(&ids.lines).enumerate() {
        let plain = ids.plain.iter().find(|plain| plain.line == index).map_or(expected, |plain| &plain.ids);
        check(&tokenizer, line, expected, plain);
    }
    for Text { text, ids, plain } in &ids.texts {
        check(&tokenizer, text, ids, plain);
    }
}

#[test]
fn names_of_special_tokens() {
    let tokenizer = parse(&base_json());
    assert_eq!(tokenizer.vocab_size(), 16_384);
    assert_eq!(tokenizer.special("<|endoftext|>"), Some(0));
    assert_eq!(tokenizer.special("def"), None);
    assert_eq!(tokenizer.fim(), Some(FimTokens { prefix: 1, suffix: 3, middle: 2, pad: Some(4) }));
    assert_eq!((tokenizer.repo_name(), tokenizer.file_sep()), (Some(5), Some(6)));
    assert_eq!(tokenizer.token_text(1), "<|fim_prefix|>");
    assert_eq!(tokenizer.token_bytes(36), b"<");
    assert_eq!(tokenizer.token_bytes(u32::MAX), b"");
    assert!(tokenizer.is_control(8) && !tokenizer.is_control(9) && !tokenizer.is_control(u32::MAX));
    assert_eq!(tokenizer.decode(&[1, 36, 0, u32::MAX, 38]), "<>");
    assert_eq!(stream(&tokenizer, &[1, 36, 0, u32::MAX, 38]), "<>");
}

#[test]
fn one_character_over_several_tokens_waits_until_it_is_whole() {
    let tokenizer = parse(&base_json());
    let ids = tokenizer.encode_plain("🦀");
    assert!(ids.len() > 1, "the test needs a character of several tokens");
    let mut stream = TextStream::new(&tokenizer);
    for &id in &ids[..ids.len() - 1] {
        assert_eq!(stream.push(id), "");
    }
    assert_eq!(stream.push(ids[ids.len() - 1]), "🦀");
    assert_eq!(stream.push(ids[0]), "");
    assert_eq!(stream.finish(), "\u{fffd}");
    assert_eq!(stream.finish(), "");
}

/// As Qwen writes its file: fill-in-the-middle tokens are added tokens, but not marked as special.
#[test]
fn unmarked_control_tokens_are_control_tokens() {
    let mut json = base_json();
    for token in json["added_tokens"].as_array_mut().expect("added tokens") {
        token["special"] = Value::Bool(false);
    }
    let tokenizer = parse(&json);
    let text = "a<|fim_prefix|>b";
    assert!(tokenizer.encode(text).contains(&1));
    let plain = tokenizer.encode_plain(text);
    assert_eq!(plain, parse(&base_json()).encode_plain(text));
    assert_eq!(tokenizer.decode(&plain), text);
    assert_eq!(tokenizer.decode(&[1, 36]), "<");
}

/// A pre-tokenizer that keeps the whole text, and a model that looks whole words up: the worst case for plain text.
#[test]
fn a_vocabulary_word_that_is_a_control_token_is_cut() {
    let mut json = base_json();
    json["pre_tokenizer"] = serde_json::json!(
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    json["model"]["ignore_merges"] = Value::Bool(true);
    let tokenizer = parse(&json);
    let plain = tokenizer.encode_plain("<|fim_prefix|>");
    assert!(!plain.iter().any(|&id| tokenizer.is_control(id)), "{plain:?}");
    assert_eq!(tokenizer.decode(&plain), "<|fim_prefix|>");
}

#[test]
fn truncation_and_padding_of_the_file_are_not_ours() {
    let mut json = base_json();
    json["truncation"] =
        serde_json::json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    let tokenizer = parse(&json);
    assert_eq!(tokenizer.encode("a b c d"), parse(&base_json()).encode("a b c d"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn plain_text_never_steers(parts in prop::collection::vec(prop_oneof![
        Just("<|fim_prefix|>".to_owned()),
        Just("<|endoftext|>".to_owned()),
        Just("<|".to_owned()),
        Just("fim_middle|>".to_owned()),
        any::<String>(),
        "[ \t\r\n]{0,6}",
        "[a-z_(){}:=0-9 ]{0,20}",
    ], 0..12)) {
        thread_local! {
            static TOKENIZER: Tokenizer = parse(&base_json());
        }
        let text = parts.concat();
        TOKENIZER.with(|tokenizer| {
            let ids = tokenizer.encode_plain(&text);
            prop_assert!(!ids.iter().any(|&id| tokenizer.is_control(id)));
            prop_assert_eq!(&tokenizer.decode(&ids), &text);
            prop_assert_eq!(&stream(tokenizer, &ids), &text);
            Ok(())
        })?;
    }
}
