//! Adapters as files: the format of Hugging Face PEFT, `adapter_config.json` and `adapter_model.safetensors`.
//!
//! The files may come from anywhere: sizes are checked before memory is taken, every tensor must have its place, and
//! an option that would change the numbers and that we do not compute is refused by name, also one we never heard of.

use bytemuck::Pod;
use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::{Map, Value, json};

use crate::checkpoint::{header_length, parse_header};
use crate::digest::FieldHasher;
use crate::{Adapter, Config, Digest, LoraPair, ModelError, Projection};

/// Bytes of an `adapter_config.json`; PEFT writes about 1 kB, rank patterns some 100 kB.
pub const ADAPTER_CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Bytes of the header of an `adapter_model.safetensors`: 14 tensors a layer at about 150 bytes, 200 layers, doubled.
pub const ADAPTER_HEADER_BYTES_MAX: u64 = 1 << 20;
/// Highest rank; published LoRA adapters stay at or below 256.
pub const ADAPTER_RANK_MAX: usize = 256;

const CONFIG_FILE: &str = "adapter_config.json";
const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// Key in the safetensors metadata under which we write the base's digest.
const BASE_DIGEST_KEY: &str = "atelier_base_digest";
const MODULE_PREFIX: &str = "base_model.model.model.layers.";
/// Characters that make a key of `rank_pattern` a regular expression rather than the end of a module's name.
const REGEX_CHARACTERS: &[char] = &['^', '$', '*', '+', '?', '(', ')', '[', ']', '{', '}', '|', '\\'];

/// Fields of the configuration that we read, or that change nothing once an adapter is trained.
const FIELDS_WITHOUT_EFFECT: [&str; 26] = [
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
];

/// The two files of a PEFT adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterFiles {
    /// `adapter_config.json`.
    pub config: Vec<u8>,
    /// `adapter_model.safetensors`.
    pub weights: Vec<u8>,
}

impl AdapterFiles {
    /// Digest of the content: the adapter's name.
    pub fn digest(&self) -> Digest {
        let mut hasher = FieldHasher::new("atelier adapter 1");
        hasher.field(CONFIG_FILE, &self.config);
        hasher.field(WEIGHTS_FILE, &self.weights);
        hasher.finish()
    }
}

impl Adapter {
    /// Reads an adapter for a base of the given shapes and digest.
    ///
    /// # Errors
    /// Damaged files, wrong shapes, values that are not finite, another base, and options that are not supported, by
    /// name.
    pub fn from_peft(files: &AdapterFiles, config: &Config, base: Digest) -> Result<Self, ModelError> {
        let options = Options::parse(&files.config)?;
        let (header, data) = open_weights(&files.weights)?;
        check_base(&header, base)?;
        let mut adapter = Self::empty(config);
        for tensor in header.offset_keys() {
            let (layer, projection, side) = place(&tensor, config)?;
            match side {
                Side::A => {
                    let pair = read_pair(&tensor, layer, projection, &header, data, config, &options)?;
                    adapter.set(layer, projection, pair);
                }
                Side::B => {
                    let a = tensor_name(layer, projection, Side::A);
                    info(&header, &a, "of the same rank")?;
                }
            }
        }
        if adapter.pairs().next().is_none() {
            let problem = "it holds no LoRA matrices".to_owned();
            return Err(ModelError::Field { file: WEIGHTS_FILE.to_owned(), field: "tensors".to_owned(), problem });
        }
        Ok(adapter)
    }

    /// Writes the adapter for PEFT. The same adapter gives the same bytes.
    pub fn to_peft(&self, base: Digest, base_name: &str) -> AdapterFiles {
        AdapterFiles { config: self.config_json(base_name), weights: self.safetensors(base) }
    }

    fn config_json(&self, base_name: &str) -> Vec<u8> {
        let rank = self.rank();
        let alpha_of = |pair: &LoraPair| alpha(pair.scale, pair.rank);
        let common = self.pairs().find(|(_, _, pair)| pair.rank == rank).map_or(0.0, |(_, _, pair)| alpha_of(pair));
        let module =
            |layer: usize, projection: Projection| format!("model.layers.{layer}.{}", projection.module_path());
        let mut rank_pattern = Map::new();
        let mut alpha_pattern = Map::new();
        for (layer, projection, pair) in self.pairs() {
            if pair.rank != rank {
                rank_pattern.insert(module(layer, projection), json!(pair.rank));
            }
            if alpha_of(pair) != common {
                alpha_pattern.insert(module(layer, projection), number(alpha_of(pair)));
            }
        }
        let used = |wanted: &Projection| self.pairs().any(|(_, projection, _)| projection == *wanted);
        let target_modules: Vec<&str> = Projection::ALL
            .iter()
            .filter(|projection| used(projection))
            .map(|projection| projection.peft_name())
            .collect();
        let config = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base_name,
            "r": rank,
            "lora_alpha": number(common),
            "lora_dropout": 0.0,
            "target_modules": target_modules,
            "rank_pattern": rank_pattern,
            "alpha_pattern": alpha_pattern,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "modules_to_save": null,
            "use_dora": false,
            "use_rslora": false,
        });
        format!("{config:#}\n").into_bytes()
    }

    /// Written by hand: the library's writer puts the metadata in an order that changes from run to run.
    fn safetensors(&self, base: Digest) -> Vec<u8> {
        let mut header = Map::new();
        header.insert("__metadata__".to_owned(), json!({ "format": "pt", BASE_DIGEST_KEY: base.to_string() }));
        let mut data: Vec<u8> = Vec::with_capacity(self.bytes());
        for (layer, projection, pair) in self.pairs() {
            let (n_in, n_out) = (pair.a.len() / pair.rank, pair.b_t.len() / pair.rank);
            let b = transpose(&pair.b_t, pair.rank, n_out);
            for (side, values, shape) in [(Side::A, &pair.a, [pair.rank, n_in]), (Side::B, &b, [n_out, pair.rank])] {
                let start = data.len();
                data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                let place = json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()] });
                header.insert(tensor_name(layer, projection, side), place);
            }
        }
        let mut header = Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' '); // the data begins aligned
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.append(&mut header);
        file.append(&mut data);
        file
    }
}

/// Which of the two matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    A,
    B,
}

fn tensor_name(layer: usize, projection: Projection, side: Side) -> String {
    format!("{MODULE_PREFIX}{layer}.{}.lora_{side:?}.weight", projection.module_path())
}

/// Where a tensor of the file belongs.
fn place(tensor: &str, config: &Config) -> Result<(usize, Projection, Side), ModelError> {
    let parsed = || {
        let (layer, rest) = tensor.strip_prefix(MODULE_PREFIX)?.split_once('.')?;
        let layer: usize = layer.parse().ok().filter(|&layer| layer < config.layer_count)?;
        let (module, side) = match rest.strip_suffix(".lora_A.weight") {
            Some(module) => (module, Side::A),
            None => (rest.strip_suffix(".lora_B.weight")?, Side::B),
        };
        let projection = Projection::ALL.into_iter().find(|projection| projection.module_path() == module)?;
        // "01" would read as layer 1 too.
        (tensor_name(layer, projection, side) == tensor).then_some((layer, projection, side))
    };
    parsed().ok_or_else(|| ModelError::UnexpectedTensor {
        file: WEIGHTS_FILE.to_owned(),
        tensor: tensor.to_owned(),
        advice: "only LoRA matrices of the seven projections of the base's own layers are supported",
    })
}

fn open_weights(file: &[u8]) -> Result<(Metadata, &[u8]), ModelError> {
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        let problem = format!("{} bytes are too few for a safetensors file", file.len());
        return Err(ModelError::Damaged { file: WEIGHTS_FILE.to_owned(), problem });
    };
    let claimed = u64::from_le_bytes(*length);
    let header_bytes = header_length(WEIGHTS_FILE, claimed, file.len() as u64, ADAPTER_HEADER_BYTES_MAX)?;
    let (header, data) = rest.split_at(header_bytes);
    Ok((parse_header(WEIGHTS_FILE, header, data.len() as u64)?, data))
}

fn check_base(header: &Metadata, expected: Digest) -> Result<(), ModelError> {
    let Some(text) = header.metadata().as_ref().and_then(|metadata| metadata.get(BASE_DIGEST_KEY)) else {
        return Ok(()); // made by PEFT: shapes must do
    };
    let found: Digest = text.parse().map_err(|_| ModelError::Field {
        file: WEIGHTS_FILE.to_owned(),
        field: BASE_DIGEST_KEY.to_owned(),
        problem: format!("is {text:?}, not a digest"),
    })?;
    if found == expected { Ok(()) } else { Err(ModelError::OtherBase { expected, found }) }
}

fn info<'a>(header: &'a Metadata, tensor: &str, expected: &str) -> Result<&'a TensorInfo, ModelError> {
    header.info(tensor).ok_or_else(|| ModelError::Damaged {
        file: WEIGHTS_FILE.to_owned(),
        problem: format!("tensor `{tensor}` {expected} is missing beside its partner"),
    })
}

fn read_pair(
    tensor_a: &str,
    layer: usize,
    projection: Projection,
    header: &Metadata,
    data: &[u8],
    config: &Config,
    options: &Options,
) -> Result<LoraPair, ModelError> {
    let (n_out, n_in) = projection.shape(config);
    let (rank, scale) = options.rank_and_scale(layer, projection);
    let tensor_b = tensor_name(layer, projection, Side::B);
    let a = read(tensor_a, info(header, tensor_a, "of the same rank")?, data, [rank, n_in])?;
    let b = read(&tensor_b, info(header, &tensor_b, "of the same rank")?, data, [n_out, rank])?;
    Ok(LoraPair { rank, scale, a, b_t: transpose(&b, n_out, rank) })
}

fn read(tensor: &str, info: &TensorInfo, data: &[u8], expected: [usize; 2]) -> Result<Vec<f32>, ModelError> {
    let (file, tensor) = (WEIGHTS_FILE.to_owned(), tensor.to_owned());
    if info.shape != expected {
        return Err(ModelError::Shape { file, tensor, expected: expected.to_vec(), found: info.shape.clone() });
    }
    let bytes = &data[info.data_offsets.0..info.data_offsets.1];
    let values: Vec<f32> = match info.dtype {
        Dtype::F32 => elements::<f32>(bytes).collect(),
        Dtype::F16 => elements::<f16>(bytes).map(|value| value.to_f32()).collect(),
        Dtype::BF16 => elements::<bf16>(bytes).map(|value| value.to_f32()).collect(),
        other => return Err(ModelError::TensorType { file, tensor, found: other.to_string() }),
    };
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(ModelError::NotFinite { file, tensor, index }),
        None => Ok(values),
    }
}

/// Elements of a buffer of any alignment.
fn elements<T: Pod>(bytes: &[u8]) -> impl Iterator<Item = T> {
    bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned)
}

/// (rows, columns) to (columns, rows)
fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}

/// The alpha that gives exactly `scale` again when divided by `rank`: a whole or short number where one does.
fn alpha(scale: f32, rank: usize) -> f64 {
    let exact = f64::from(scale) * rank as f64;
    let candidates = [exact.round(), f64::from(exact as f32)];
    candidates.into_iter().find(|&alpha| scale_of(alpha, rank) == scale).unwrap_or(exact)
}

fn scale_of(alpha: f64, rank: usize) -> f32 {
    (alpha / rank as f64) as f32
}

/// A JSON number, whole where it is whole, as PEFT writes alpha.
fn number(value: f64) -> Value {
    if value == value.trunc() && value.abs() < f64::from(u32::MAX) { json!(value as i64) } else { json!(value) }
}

/// What we need of `adapter_config.json`.
#[derive(Debug)]
struct Options {
    rank: usize,
    alpha: f64,
    root_scaling: bool, // rsLoRA: alpha / √r instead of alpha / r
    rank_pattern: Vec<(String, usize)>,
    alpha_pattern: Vec<(String, f64)>,
}

impl Options {
    fn parse(bytes: &[u8]) -> Result<Self, ModelError> {
        let file = || CONFIG_FILE.to_owned();
        if bytes.len() as u64 > ADAPTER_CONFIG_BYTES_MAX {
            let found = bytes.len() as u64;
            return Err(ModelError::TooLarge { file: file(), found, limit: ADAPTER_CONFIG_BYTES_MAX });
        }
        let fields: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|source| ModelError::Json { file: file(), source })?;
        refuse_unsupported(&fields)?;
        let get = |field: &str| fields.get(field).unwrap_or(&Value::Null);
        Ok(Self {
            rank: rank("r", get("r"))?,
            alpha: finite("lora_alpha", get("lora_alpha"))?,
            root_scaling: flag("use_rslora", get("use_rslora"))?,
            rank_pattern: pattern("rank_pattern", get("rank_pattern"), rank)?,
            alpha_pattern: pattern("alpha_pattern", get("alpha_pattern"), finite)?,
        })
    }

    fn rank_and_scale(&self, layer: usize, projection: Projection) -> (usize, f32) {
        let module = format!("model.layers.{layer}.{}", projection.module_path());
        let rank = lookup(&self.rank_pattern, &module).unwrap_or(self.rank);
        let alpha = lookup(&self.alpha_pattern, &module).unwrap_or(self.alpha);
        let scale = if self.root_scaling { (alpha / (rank as f64).sqrt()) as f32 } else { scale_of(alpha, rank) };
        (rank, scale)
    }
}

/// PEFT takes the first key that is the module's name or a dotted end of it.
fn lookup<T: Copy>(pattern: &[(String, T)], module: &str) -> Option<T> {
    let ends = |key: &str| module.strip_suffix(key).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    pattern.iter().find(|(key, _)| ends(key)).map(|&(_, value)| value)
}

fn wrong(field: &str, problem: String) -> ModelError {
    ModelError::Field { file: CONFIG_FILE.to_owned(), field: field.to_owned(), problem }
}

fn flag(field: &str, value: &Value) -> Result<bool, ModelError> {
    match value {
        Value::Null => Ok(false),
        Value::Bool(value) => Ok(*value),
        other => Err(wrong(field, format!("is {other}, not true or false"))),
    }
}

fn rank(field: &str, value: &Value) -> Result<usize, ModelError> {
    match value.as_u64() {
        Some(rank) if (1..=ADAPTER_RANK_MAX as u64).contains(&rank) => Ok(rank as usize),
        _ => Err(wrong(field, format!("is {value}, not a rank from 1 to {ADAPTER_RANK_MAX}"))),
    }
}

fn finite(field: &str, value: &Value) -> Result<f64, ModelError> {
    // JSON has no infinity, but a large number times a weight would make one.
    const ALPHA_MAX: f64 = 65_536.0;
    match value.as_f64() {
        Some(alpha) if alpha.abs() <= ALPHA_MAX => Ok(alpha),
        _ => Err(wrong(field, format!("is {value}, not a number of at most {ALPHA_MAX}"))),
    }
}

fn pattern<T>(
    field: &str,
    value: &Value,
    read: fn(&str, &Value) -> Result<T, ModelError>,
) -> Result<Vec<(String, T)>, ModelError> {
    let entries = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Object(entries) => entries,
        other => return Err(wrong(field, format!("is {other}, not an object"))),
    };
    let entry = |(key, value): (&String, &Value)| {
        if key.contains(REGEX_CHARACTERS) {
            return Err(unsupported(
                format!("the regular expression {key:?} in `{field}`"),
                "name the modules in full",
            ));
        }
        Ok((key.clone(), read(field, value)?))
    };
    entries.iter().map(entry).collect()
}

fn unsupported(what: String, advice: &'static str) -> ModelError {
    ModelError::Unsupported { file: CONFIG_FILE.to_owned(), what, advice }
}

fn refuse_unsupported(fields: &Map<String, Value>) -> Result<(), ModelError> {
    let get = |field: &str| fields.get(field).unwrap_or(&Value::Null);
    if get("peft_type") != "LORA" {
        return Err(unsupported(format!("peft_type {}", get("peft_type")), "train with PEFT's LoraConfig"));
    }
    if !matches!(get("task_type"), Value::Null) && get("task_type") != "CAUSAL_LM" {
        return Err(unsupported(format!("task_type {}", get("task_type")), "train with task_type `CAUSAL_LM`"));
    }
    if !matches!(get("bias"), Value::Null) && get("bias") != "none" {
        return Err(unsupported(format!("bias {}", get("bias")), "train with bias `none`"));
    }
    // These start from a changed base: the pair is right only beside the base they changed.
    if let Some(init) = get("init_lora_weights").as_str()
        && !["gaussian", "orthogonal", "eva"].contains(&init)
    {
        let advice = "convert it to a plain LoRA adapter (PEFT: path_initial_model_for_weight_conversion)";
        return Err(unsupported(format!("init_lora_weights {init:?}"), advice));
    }
    if let Some(modules) = get("target_modules").as_array() {
        let known = |module: &str| {
            let name = module.rsplit('.').next().unwrap_or(module);
            Projection::ALL.iter().any(|projection| projection.peft_name() == name)
        };
        if let Some(other) = modules.iter().find(|module| !module.as_str().is_some_and(known)) {
            let advice = "train q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj or down_proj";
            return Err(unsupported(format!("target module {other}"), advice));
        }
    }
    let active = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    };
    let unknown = fields.iter().find(|(field, value)| {
        *field != "use_rslora" && !FIELDS_WITHOUT_EFFECT.contains(&field.as_str()) && active(value)
    });
    match unknown {
        None => Ok(()),
        Some((field, value)) => {
            Err(unsupported(format!("`{field}` = {value}"), "train a plain LoRA adapter without this option"))
        }
    }
}
