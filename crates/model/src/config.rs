//! `config.json` of a Hugging Face folder: the shapes we compute with, and the refusal of everything we do not.

use std::path::Path;

use serde_json::Value;

use crate::ModelError;
use crate::digest::FieldHasher;

/// Bytes of a `config.json`; real ones have under 10 kB.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Any dimension, so that no product of three of them overflows 64 bits; the largest published models stay under 2²⁰.
const DIMENSION_MAX: u64 = 1 << 20;
/// Layers; the deepest published models have under 200.
const LAYER_COUNT_MAX: u64 = 1024;
/// Tokens of context; bounds the table of rotary angles to some hundred megabytes.
const CONTEXT_TOKENS_MAX: u64 = 1 << 20;

/// The model families we implement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Llama 2 and 3 and everything in their layout.
    Llama,
    /// Qwen2 and Qwen2.5: biases on q, k and v.
    Qwen2,
    /// Qwen3: RMS norm on each head of q and k, a head size of its own.
    Qwen3,
}

/// Shapes and constants of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Which family.
    pub family: Family,
    /// Rows of the embedding; ids are below it.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub layer_count: usize,
    /// Query heads.
    pub head_count: usize,
    /// Key and value heads; divides `head_count`.
    pub kv_head_count: usize,
    /// Width of one head; even.
    pub head_dim: usize,
    /// Positions that the model was made for; a sequence cannot be longer.
    pub context_tokens_max: usize,
    /// Added under the root of every RMS norm.
    pub rms_norm_eps: f32,
    /// Base of the rotary angles.
    pub rope_theta: f64,
    /// The head is the embedding.
    pub tied_head: bool,
    /// q, k and v have biases.
    pub qkv_bias: bool,
    /// q and k are normalised per head.
    pub qk_norm: bool,
    /// Ids that end a completion.
    pub eos_token_ids: Vec<u32>,
}

impl Config {
    /// Width of all query heads: head_count * head_dim.
    pub fn q_width(&self) -> usize {
        self.head_count * self.head_dim
    }

    /// Width of all key heads: kv_head_count * head_dim.
    pub fn kv_width(&self) -> usize {
        self.kv_head_count * self.head_dim
    }

    /// Reads `config.json`, and the end-of-text ids of `generation_config.json` where there is one.
    pub(crate) fn load(folder: &Path, hasher: &mut FieldHasher) -> Result<Self, ModelError> {
        let path = folder.join("config.json");
        let advice = "the folder of a base model must hold config.json, tokenizer.json and model.safetensors";
        let bytes = read_capped(&path, CONFIG_BYTES_MAX, advice)?;
        hasher.field("config.json", &bytes);
        let file = path.display().to_string();
        let mut config = Self::parse(&file, &bytes)?;
        let generation = folder.join("generation_config.json");
        if generation.exists() {
            let bytes = read_capped(&generation, CONFIG_BYTES_MAX, advice)?;
            let file = generation.display().to_string();
            let json: Value =
                serde_json::from_slice(&bytes).map_err(|source| ModelError::Json { file: file.clone(), source })?;
            for id in token_ids(&Fields { file: &file, json: &json }, config.vocab_size)? {
                if !config.eos_token_ids.contains(&id) {
                    config.eos_token_ids.push(id);
                }
            }
        }
        Ok(config)
    }

    /// Reads the content of a `config.json`; `file` names it in errors.
    ///
    /// # Errors
    /// Bad JSON, impossible values, anything not supported.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, ModelError> {
        let json: Value =
            serde_json::from_slice(bytes).map_err(|source| ModelError::Json { file: file.to_owned(), source })?;
        let fields = Fields { file, json: &json };
        let family = family(&fields)?;
        refuse_unsupported(&fields, family)?;

        let hidden_size = fields.dimension("hidden_size", None)?;
        let head_count = fields.dimension("num_attention_heads", None)?;
        let kv_head_count = fields.dimension("num_key_value_heads", Some(head_count))?;
        let head_dim_default = if family == Family::Qwen3 { 128 } else { hidden_size / head_count };
        let head_dim = fields.dimension("head_dim", Some(head_dim_default))?;
        let vocab_size = fields.dimension("vocab_size", None)?;
        if head_count % kv_head_count != 0 {
            let problem = format!("is {kv_head_count}, which does not divide num_attention_heads {head_count}");
            return Err(fields.wrong("num_key_value_heads", problem));
        }
        if head_dim % 2 != 0 {
            return Err(fields.wrong("head_dim", format!("is {head_dim}; rotary positions need an even number")));
        }
        Ok(Self {
            family,
            vocab_size,
            hidden_size,
            intermediate_size: fields.dimension("intermediate_size", None)?,
            layer_count: fields.whole("num_hidden_layers", None, LAYER_COUNT_MAX)?,
            head_count,
            kv_head_count,
            head_dim,
            context_tokens_max: fields.whole("max_position_embeddings", None, CONTEXT_TOKENS_MAX)?,
            rms_norm_eps: fields.positive("rms_norm_eps", 1e-6)? as f32,
            rope_theta: rope_theta(&fields)?,
            tied_head: fields.flag("tie_word_embeddings")?,
            qkv_bias: family == Family::Qwen2,
            qk_norm: family == Family::Qwen3,
            eos_token_ids: token_ids(&fields, vocab_size)?,
        })
    }

    /// A small valid configuration for tests of shapes.
    #[cfg(test)]
    pub(crate) fn example() -> Self {
        Self::parse(
            "config.json",
            br#"{"model_type": "llama", "vocab_size": 64, "hidden_size": 24, "intermediate_size": 40,
                "num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 8,
                "hidden_act": "silu", "max_position_embeddings": 64, "tie_word_embeddings": true, "eos_token_id": 0}"#,
        )
        .expect("the example is valid")
    }
}

fn family(fields: &Fields) -> Result<Family, ModelError> {
    match fields.json.get("model_type").and_then(Value::as_str) {
        Some("llama") => Ok(Family::Llama),
        Some("qwen2") => Ok(Family::Qwen2),
        Some("qwen3") => Ok(Family::Qwen3),
        Some(other) => {
            Err(fields.unsupported(format!("model_type `{other}`"), "use a model of type llama, qwen2 or qwen3"))
        }
        None => Err(fields.wrong("model_type", "is missing".to_owned())),
    }
}

/// Refuses, by name, every option that would change the numbers and that we do not compute.
fn refuse_unsupported(fields: &Fields, family: Family) -> Result<(), ModelError> {
    let get = |field: &str| fields.json.get(field).filter(|value| !value.is_null());
    match get("hidden_act").map(|act| act.as_str()) {
        None | Some(Some("silu")) => {}
        Some(_) => {
            let what = format!("activation {}", fields.json["hidden_act"]);
            return Err(fields.unsupported(what, "use a model with hidden_act `silu`"));
        }
    }
    for field in ["quantization_config", "compression_config"] {
        if get(field).is_some() {
            let advice = "use the original bf16 weights: quantisation to int8 happens at load";
            return Err(fields.unsupported(format!("a quantised checkpoint (`{field}`)"), advice));
        }
    }
    for field in ["rope_scaling", "rope_parameters"] {
        let Some(rope) = get(field) else { continue };
        let kind = rope.get("rope_type").or_else(|| rope.get("type")).and_then(Value::as_str);
        // Newer files write `rope_parameters` also where nothing is scaled.
        if !matches!((field, kind), (_, Some("default")) | ("rope_parameters", None)) {
            let what = format!("`{field}` of type {}", kind.unwrap_or("unknown"));
            return Err(fields.unsupported(what, "use a model with plain rotary positions"));
        }
    }
    let partial = get("partial_rotary_factor").or_else(|| get("rope_parameters")?.get("partial_rotary_factor"));
    if partial.is_some_and(|factor| factor.as_f64() != Some(1.0)) {
        return Err(fields.unsupported("`partial_rotary_factor`".to_owned(), "use a model that rotates whole heads"));
    }
    let slides = get("layer_types")
        .and_then(Value::as_array)
        .is_some_and(|types| types.iter().any(|kind| kind.as_str() != Some("full_attention")));
    let windowed = family == Family::Llama && get("sliding_window").is_some();
    if fields.flag("use_sliding_window")? || slides || windowed {
        let advice = "use a model with full attention in every layer";
        return Err(fields.unsupported("sliding window attention".to_owned(), advice));
    }
    // Qwen2 always has its three biases and ignores the field.
    if family != Family::Qwen2 && fields.flag("attention_bias")? {
        return Err(fields.unsupported("`attention_bias`".to_owned(), "use a model without attention biases"));
    }
    if fields.flag("mlp_bias")? {
        return Err(fields.unsupported("`mlp_bias`".to_owned(), "use a model without feed-forward biases"));
    }
    Ok(())
}

fn rope_theta(fields: &Fields) -> Result<f64, ModelError> {
    let nested = fields.json.get("rope_parameters").filter(|rope| rope.get("rope_theta").is_some());
    Fields { file: fields.file, json: nested.unwrap_or(fields.json) }.positive("rope_theta", 10_000.0)
}

/// `eos_token_id`: absent, null, a number, or a list of numbers.
fn token_ids(fields: &Fields, vocab_size: usize) -> Result<Vec<u32>, ModelError> {
    let values = match fields.json.get("eos_token_id") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(values)) => &values[..],
        Some(value) => std::slice::from_ref(value),
    };
    let id = |value: &Value| value.as_u64().filter(|&id| id < vocab_size as u64).map(|id| id as u32);
    let ids: Option<Vec<u32>> = values.iter().map(id).collect();
    ids.ok_or_else(|| {
        let problem = format!("is {}, not ids below vocab_size {vocab_size}", fields.json["eos_token_id"]);
        fields.wrong("eos_token_id", problem)
    })
}

/// Typed access to the fields of one JSON object, with errors that name file and field.
struct Fields<'a> {
    file: &'a str,
    json: &'a Value,
}

impl Fields<'_> {
    fn wrong(&self, field: &str, problem: String) -> ModelError {
        ModelError::Field { file: self.file.to_owned(), field: field.to_owned(), problem }
    }

    fn unsupported(&self, what: String, advice: &'static str) -> ModelError {
        ModelError::Unsupported { file: self.file.to_owned(), what, advice }
    }

    fn dimension(&self, field: &str, default: Option<usize>) -> Result<usize, ModelError> {
        self.whole(field, default, DIMENSION_MAX)
    }

    /// A whole number in 1..=max.
    fn whole(&self, field: &str, default: Option<usize>, max: u64) -> Result<usize, ModelError> {
        let found = match (self.json.get(field), default) {
            (None | Some(Value::Null), Some(default)) => return Ok(default.max(1)),
            (None | Some(Value::Null), None) => return Err(self.wrong(field, "is missing".to_owned())),
            (Some(value), _) => value,
        };
        match found.as_u64() {
            Some(value) if (1..=max).contains(&value) => Ok(value as usize),
            _ => Err(self.wrong(field, format!("is {found}, not a whole number from 1 to {max}"))),
        }
    }

    fn positive(&self, field: &str, default: f64) -> Result<f64, ModelError> {
        let found = match self.json.get(field) {
            None | Some(Value::Null) => return Ok(default),
            Some(value) => value,
        };
        match found.as_f64() {
            Some(value) if value > 0.0 && value.is_finite() => Ok(value),
            _ => Err(self.wrong(field, format!("is {found}, not a positive number"))),
        }
    }

    /// A boolean; absent means false.
    fn flag(&self, field: &str) -> Result<bool, ModelError> {
        match self.json.get(field) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(other) => Err(self.wrong(field, format!("is {other}, not true or false"))),
        }
    }
}

/// Reads a whole file of at most `limit` bytes.
pub(crate) fn read_capped(path: &Path, limit: u64, advice: &'static str) -> Result<Vec<u8>, ModelError> {
    let read_error = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => ModelError::MissingFile { path: path.to_owned(), advice },
        _ => ModelError::Read { path: path.to_owned(), source },
    };
    let found = std::fs::metadata(path).map_err(read_error)?.len();
    if found > limit {
        return Err(ModelError::TooLarge { file: path.display().to_string(), found, limit });
    }
    std::fs::read(path).map_err(read_error)
}
