//! Folders that load, and folders that are refused with a message that names the file, the reason and the way out.

use std::borrow::Cow;
use std::path::Path;

use atelier_kernels::{Tier, WeightFormat};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView, View};
use safetensors::{SafeTensors, serialize};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Golden, Sequence, golden_folder, load, run_whole, try_load};
use atelier_model::LoraPair;

struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl View for &Tensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        (&self.data[..]).into()
    }
    fn data_len(&self) -> usize {
        self.data.len()
    }
}

/// A copy of a golden folder to spoil.
fn copy_of(name: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("temporary folder");
    for entry in std::fs::read_dir(golden_folder(name)).expect("golden folder") {
        let entry = entry.expect("golden folder");
        if entry.file_type().expect("type").is_file() {
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("copy");
        }
    }
    folder
}

fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut json = serde_json::from_slice(&std::fs::read(path).expect("read")).expect("JSON");
    edit(&mut json);
    std::fs::write(path, json.to_string()).expect("write");
}

fn edit_tensors(path: &Path, mut edit: impl FnMut(&str, TensorView) -> Option<Tensor>) {
    let bytes = std::fs::read(path).expect("read");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors").tensors();
    let edited: Vec<(String, Tensor)> =
        tensors.into_iter().filter_map(|(name, view)| edit(&name, view).map(|tensor| (name, tensor))).collect();
    let views = edited.iter().map(|(name, tensor)| (name, tensor));
    std::fs::write(path, serialize(views, None).expect("serialize")).expect("write");
}

fn same(view: TensorView) -> Tensor {
    Tensor { dtype: view.dtype(), shape: view.shape().to_vec(), data: view.data().to_vec() }
}

/// The same tensor in another type; the golden weights are bf16.
fn converted(view: TensorView, dtype: Dtype) -> Tensor {
    let values = view.data().chunks_exact(2).map(|pair| bf16::from_le_bytes([pair[0], pair[1]]).to_f32());
    let data = match dtype {
        Dtype::F32 => values.flat_map(f32::to_le_bytes).collect(),
        Dtype::F16 => values.flat_map(|value| f16::from_f32(value).to_le_bytes()).collect(),
        other => panic!("no conversion to {other}"),
    };
    Tensor { dtype, shape: view.shape().to_vec(), data }
}

fn logits_of(folder: &Path) -> Vec<f32> {
    let golden = Golden::read(&golden_folder("llama").join("golden.safetensors"));
    let model = load(folder, Tier::detect(), WeightFormat::Bf16);
    let sequence = |tokens| Sequence { tokens, adapters: vec![] };
    run_whole::<LoraPair>(&model, &golden.sequences().into_iter().map(sequence).collect::<Vec<_>>()).concat()
}

#[test]
fn shards_are_the_same_model() {
    let (one, many) = (golden_folder("llama"), golden_folder("llama-sharded"));
    assert_eq!(logits_of(&one), logits_of(&many));
    let digest = |folder: &Path, format| load(folder, Tier::Portable, format).digest();
    let expected = digest(&one, WeightFormat::Bf16);
    assert_eq!(digest(&one, WeightFormat::Int8), expected);
    assert_eq!(digest(&many, WeightFormat::Bf16), expected);
    assert_ne!(digest(&golden_folder("qwen2"), WeightFormat::Bf16), expected);
}

#[test]
fn other_number_types_are_read() {
    let expected = logits_of(&golden_folder("llama"));
    let folder = copy_of("llama");
    let weights = folder.path().join("model.safetensors");
    edit_tensors(&weights, |_, view| Some(converted(view, Dtype::F32)));
    assert_eq!(logits_of(folder.path()), expected, "f32 holds every bf16");

    let folder = copy_of("llama");
    let weights = folder.path().join("model.safetensors");
    edit_tensors(&weights, |_, view| Some(converted(view, Dtype::F16)));
    let found = logits_of(folder.path());
    let close = found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 0.05);
    assert!(close, "f16 holds all but the smallest bf16");
}

#[test]
fn int8_takes_less_memory_and_backward_more() {
    let bytes = |format, with_backward| {
        let compute = std::sync::Arc::new(atelier_kernels::Compute::new(Tier::detect(), 1));
        let options = atelier_model::LoadOptions { format, with_backward };
        atelier_model::Model::load(compute, &crate::support::base_folder(), options).expect("loads").weight_bytes()
    };
    let plain = bytes(WeightFormat::Bf16, false);
    assert!(bytes(WeightFormat::Int8, false) < plain);
    assert!(bytes(WeightFormat::Bf16, true) > plain);
}

#[test]
fn redundant_tensors_are_ignored() {
    let folder = copy_of("llama");
    let weights = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&weights).expect("read");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let mut edited: Vec<(String, Tensor)> =
        tensors.tensors().into_iter().map(|(name, view)| (name, same(view))).collect();
    let embedding = tensors.tensor("model.embed_tokens.weight").expect("embedding");
    edited.push(("lm_head.weight".to_owned(), same(embedding)));
    let angles = Tensor { dtype: Dtype::F32, shape: vec![1], data: vec![0; 4] };
    edited.push(("model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(), angles));
    let views = edited.iter().map(|(name, tensor)| (name, tensor));
    std::fs::write(&weights, serialize(views, None).expect("serialize")).expect("write");
    assert_eq!(logits_of(folder.path()), logits_of(&golden_folder("llama")));
}

/// Spoils a copy of a golden folder and checks that the refusal's message has all the `expected` parts.
fn refuse(name: &str, spoil: impl FnOnce(&Path), expected: &[&str]) {
    let folder = copy_of(name);
    spoil(folder.path());
    let error = match try_load(folder.path(), Tier::Portable, WeightFormat::Bf16) {
        Ok(_) => panic!("loaded, though it should say {expected:?}"),
        Err(error) => error.to_string(),
    };
    for part in expected {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
}

fn refuse_config(name: &str, edit: impl FnOnce(&mut Value), expected: &[&str]) {
    let expected = [&["config.json"], expected].concat();
    refuse(name, |folder| edit_json(&folder.join("config.json"), edit), &expected);
}

#[test]
fn unsupported_models_are_refused_by_name() {
    let set = |field: &'static str, value: Value| move |config: &mut Value| config[field] = value;
    let check = |field, value, expected: &[&str]| refuse_config("llama", set(field, value), expected);
    check("model_type", json!("mistral"), &["model_type `mistral`", "llama, qwen2 or qwen3"]);
    check("model_type", json!(null), &["`model_type` is missing"]);
    check("rope_scaling", json!({"rope_type": "llama3", "factor": 8.0}), &["`rope_scaling` of type llama3"]);
    check("rope_scaling", json!({"type": "linear", "factor": 2.0}), &["`rope_scaling` of type linear"]);
    check("rope_parameters", json!({"rope_type": "yarn", "rope_theta": 1e4}), &["`rope_parameters` of type yarn"]);
    check("partial_rotary_factor", json!(0.5), &["`partial_rotary_factor`"]);
    check("use_sliding_window", json!(true), &["sliding window"]);
    check("sliding_window", json!(4096), &["sliding window"]);
    check("layer_types", json!(["full_attention", "sliding_attention"]), &["sliding window"]);
    check("hidden_act", json!("gelu"), &["activation \"gelu\"", "silu"]);
    check("quantization_config", json!({"quant_method": "gptq"}), &["quantised", "original bf16"]);
    check("attention_bias", json!(true), &["`attention_bias`"]);
    check("mlp_bias", json!(true), &["`mlp_bias`"]);
}

#[test]
fn impossible_configurations_are_refused() {
    let set = |field: &'static str, value: Value| move |config: &mut Value| config[field] = value;
    let check = |field, value, expected: &[&str]| refuse_config("llama", set(field, value), expected);
    check("hidden_size", json!(0), &["`hidden_size` is 0, not a whole number from 1 to 1048576"]);
    check("hidden_size", json!(-4), &["`hidden_size` is -4"]);
    check("hidden_size", json!(1u64 << 60), &["`hidden_size`"]);
    check("num_hidden_layers", json!(5000), &["`num_hidden_layers` is 5000"]);
    check("num_key_value_heads", json!(3), &["does not divide num_attention_heads 4"]);
    check("head_dim", json!(11), &["`head_dim` is 11", "even"]);
    check("rms_norm_eps", json!("small"), &["`rms_norm_eps` is \"small\", not a positive number"]);
    check("tie_word_embeddings", json!(1), &["`tie_word_embeddings` is 1, not true or false"]);
    check("eos_token_id", json!([0, 280]), &["`eos_token_id` is [0,280]", "below vocab_size 280"]);
    refuse("llama", |folder| std::fs::write(folder.join("config.json"), "{").expect("write"), &["not valid JSON"]);
}

#[test]
fn missing_files_say_what_to_do() {
    let remove = |name: &'static str| move |folder: &Path| std::fs::remove_file(folder.join(name)).expect("remove");
    refuse("llama", remove("config.json"), &["config.json is missing", "tokenizer.json and model.safetensors"]);
    refuse("llama", remove("tokenizer.json"), &["tokenizer.json is missing", "AutoTokenizer.save_pretrained"]);
    refuse("llama", remove("model.safetensors"), &["model.safetensors is missing", "model.safetensors.index.json"]);
    let shard = "model-00002-of-00002.safetensors";
    refuse("llama-sharded", remove(shard), &[shard, "is missing"]);
    let only_pickle = |folder: &Path| {
        remove("model.safetensors")(folder);
        std::fs::write(folder.join("pytorch_model.bin"), "pickle").expect("write");
    };
    refuse("llama", only_pickle, &["pytorch_model.bin", "pickle", "safetensors"]);
}

#[test]
fn bad_tokenizers_are_refused() {
    let tokenizer = |content: &'static str| {
        move |folder: &Path| std::fs::write(folder.join("tokenizer.json"), content).expect("write")
    };
    refuse("llama", tokenizer("not json"), &["tokenizer.json", "not valid JSON"]);
    refuse("llama", tokenizer("[]"), &["tokenizer.json"]);
    refuse("llama", tokenizer(r#"{"version": "1.0", "model": {"type": "Strange"}}"#), &["tokenizer.json"]);
    let larger = |folder: &Path| {
        let from = crate::support::base_folder().join("tokenizer.json");
        std::fs::copy(from, folder.join("tokenizer.json")).expect("copy");
    };
    refuse("llama", larger, &["tokenizer.json", "ids up to 16383", "vocabulary of 280"]);
}

#[test]
fn damaged_weights_are_refused() {
    let spoil = |edit: fn(&mut Vec<u8>)| {
        move |folder: &Path| {
            let path = folder.join("model.safetensors");
            let mut bytes = std::fs::read(&path).expect("read");
            edit(&mut bytes);
            std::fs::write(&path, bytes).expect("write");
        }
    };
    let check = |edit, expected: &[&str]| refuse("llama", spoil(edit), &[&["model.safetensors"], expected].concat());
    check(|bytes| bytes.truncate(0), &["damaged: 0 bytes are too few", "download it again"]);
    check(|bytes| bytes.truncate(100), &["damaged", "does not fit in a file of 100"]);
    check(|bytes| bytes.truncate(bytes.len() - 1), &["damaged", "cut short in tensor `", "download it again"]);
    check(|bytes| bytes.push(0), &["damaged", "bytes of data, the header says"]);
    check(|bytes| bytes[..8].copy_from_slice(&[0xff; 8]), &["header", "more than the 100000000 accepted"]);
    check(|bytes| bytes[8..12].copy_from_slice(b"oops"), &["its header is wrong"]);
}

#[test]
fn tensors_that_do_not_fit_are_refused() {
    let wrong_size = |config: &mut Value| config["intermediate_size"] = json!(96);
    refuse(
        "llama",
        |folder| edit_json(&folder.join("config.json"), wrong_size),
        &["model.safetensors", "`model.layers.0.mlp.gate_proj.weight`", "[104, 48]", "expected [96, 48]"],
    );
    let check = |name, edit: fn(&str, TensorView) -> Option<Tensor>, expected: &[&str]| {
        refuse(name, |folder| edit_tensors(&folder.join("model.safetensors"), edit), expected);
    };
    let without = |name: &str, view: TensorView| (name != "model.norm.weight").then(|| same(view));
    check("llama", without, &["model.safetensors", "`model.norm.weight` of shape [48] is missing"]);
    let no_bias = |name: &str, view: TensorView| (!name.ends_with("k_proj.bias")).then(|| same(view));
    check("qwen2", no_bias, &["`model.layers.0.self_attn.k_proj.bias` of shape [20] is missing"]);
    let no_head = |name: &str, view: TensorView| (name != "lm_head.weight").then(|| same(view));
    check("qwen3", no_head, &["`lm_head.weight` of shape [272, 48] is missing"]);
    let whole_numbers = |name: &str, view: TensorView| {
        let mut tensor = same(view);
        if name == "model.norm.weight" {
            tensor.dtype = Dtype::I16;
        }
        Some(tensor)
    };
    check("llama", whole_numbers, &["`model.norm.weight` has type I16", "bf16, f16 or f32"]);
    let not_a_number = |name: &str, view: TensorView| {
        let mut tensor = same(view);
        if name == "model.layers.1.self_attn.q_proj.weight" {
            tensor.data[10..12].copy_from_slice(&bf16::NAN.to_le_bytes());
        }
        Some(tensor)
    };
    check("llama", not_a_number, &["`model.layers.1.self_attn.q_proj.weight`", "not finite at element 5"]);
    let infinite = |name: &str, view: TensorView| {
        let mut tensor = same(view);
        if name == "model.norm.weight" {
            tensor.data[..2].copy_from_slice(&bf16::INFINITY.to_le_bytes());
        }
        Some(tensor)
    };
    check("llama", infinite, &["`model.norm.weight`", "not finite at element 0"]);

    let one_layer = |config: &mut Value| config["num_hidden_layers"] = json!(1);
    refuse(
        "llama",
        |folder| edit_json(&folder.join("config.json"), one_layer),
        &["`model.layers.1.", "has no place in this model"],
    );
    let other_family = |config: &mut Value| config["model_type"] = json!("llama");
    refuse(
        "qwen2",
        |folder| {
            edit_json(&folder.join("config.json"), |config| {
                other_family(config);
                config["sliding_window"] = json!(null);
            })
        },
        &["proj.bias` has no place"],
    );
}

#[test]
fn an_index_that_lies_is_refused() {
    let index = "model.safetensors.index.json";
    let lead = |to: &'static str| {
        move |folder: &Path| {
            edit_json(&folder.join(index), |json| json["weight_map"]["model.norm.weight"] = json!(to));
        }
    };
    refuse("llama-sharded", lead("../model.safetensors"), &[index, "not a safetensors file beside the index"]);
    refuse("llama-sharded", lead("/etc/passwd"), &[index, "not a safetensors file beside the index"]);
    refuse("llama-sharded", lead("config.json"), &[index, "not a safetensors file beside the index"]);
    let swap = |folder: &Path| {
        edit_json(&folder.join(index), |json| {
            let map = json["weight_map"].as_object_mut().expect("a map");
            let other = map.values().find(|shard| **shard != map["model.norm.weight"]).cloned().expect("two shards");
            map.insert("model.norm.weight".to_owned(), other);
        });
    };
    refuse("llama-sharded", swap, &["damaged", "tensor `model.norm.weight` should be in it"]);
}
