//! PEFT adapters in and out, and adapters that are refused.

use atelier_kernels::{Tier, WeightFormat};
use atelier_model::{ADAPTER_HEADER_BYTES_MAX, Adapter, AdapterFiles, Digest, LoraPair, Model, Projection};
use serde_json::{Value, json};

use crate::support::{adapter_files, golden_adapter, golden_folder, load};

fn model(name: &str) -> Model {
    load(&golden_folder(name), Tier::Portable, WeightFormat::Bf16)
}

#[test]
fn golden_adapters_are_read_with_their_ranks_and_scales() {
    let check = |name: &str, rank: usize, scale: f32| {
        let model = model(name);
        let adapter = golden_adapter(&golden_folder(name), &model);
        assert_eq!(adapter.rank(), rank);
        assert_eq!(adapter.pairs().count(), 7 * model.config().layer_count);
        for (layer, projection, pair) in adapter.pairs() {
            assert_eq!(pair.scale, scale, "{name} {layer} {projection:?}");
        }
    };
    check("llama", 4, 2.0);
    check("qwen2", 5, 7.0 / 5.0);
    check("qwen3", 3, (6.0 / 3f64.sqrt()) as f32);
}

fn check_round_trip(adapter: &Adapter, model: &Model) -> AdapterFiles {
    let files = adapter.to_peft(model.digest(), "atelier-base");
    assert_eq!(files, adapter.to_peft(model.digest(), "atelier-base"), "the same bytes every time");
    let again = Adapter::from_peft(&files, model.config(), model.digest()).expect("what we wrote");
    assert!(again == *adapter, "every bit comes back");
    files
}

#[test]
fn written_adapters_come_back() {
    for name in ["llama", "qwen2", "qwen3"] {
        let model = model(name);
        check_round_trip(&golden_adapter(&golden_folder(name), &model), &model);
        let files = check_round_trip(&Adapter::new_trainable(model.config(), 6, 16.0, 3), &model);
        let config: Value = serde_json::from_slice(&files.config).expect("JSON");
        assert_eq!((&config["r"], &config["lora_alpha"]), (&json!(6), &json!(16)));
        assert_eq!(config["rank_pattern"], json!({}));
        let other = Adapter::new_trainable(model.config(), 6, 16.0, 4).to_peft(model.digest(), "atelier-base");
        assert_ne!(files.digest(), other.digest());
        assert_eq!(files.digest(), files.clone().digest());
    }
}

#[test]
fn mixed_ranks_and_scales_come_back() {
    let model = model("qwen2");
    let mut adapter = Adapter::new_trainable(model.config(), 4, 8.0, 1);
    for (layer, projection, pair) in adapter.pairs_mut() {
        let (n_out, n_in) = projection.shape(model.config());
        let rank = 1 + (layer + projection as usize) % 4;
        let value = |index: usize| (index as f32).sin();
        *pair = LoraPair {
            rank,
            scale: 0.3 + layer as f32,
            a: (0..rank * n_in).map(value).collect(),
            b_t: (0..rank * n_out).map(value).collect(),
        };
    }
    check_round_trip(&adapter, &model);
}

#[test]
fn an_adapter_of_a_few_modules_is_an_adapter() {
    let model = model("llama");
    let files = keep_tensors(&adapter_files(&golden_folder("llama")), |name| {
        name.contains("layers.1.self_attn.q_proj") || name.contains("layers.0.mlp.up_proj")
    });
    let adapter = Adapter::from_peft(&files, model.config(), model.digest()).expect("a small adapter");
    let places: Vec<_> = adapter.pairs().map(|(layer, projection, _)| (layer, projection)).collect();
    assert_eq!(places, [(0, Projection::Up), (1, Projection::Q)]);
    check_round_trip(&adapter, &model);
}

/// Splits a safetensors file into its header and data.
fn open(weights: &[u8]) -> (Value, Vec<u8>) {
    let length = u64::from_le_bytes(weights[..8].try_into().expect("eight bytes")) as usize;
    (serde_json::from_slice(&weights[8..8 + length]).expect("JSON"), weights[8 + length..].to_vec())
}

fn close(header: &Value, data: &[u8]) -> Vec<u8> {
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

fn keep_tensors(files: &AdapterFiles, keep: impl Fn(&str) -> bool) -> AdapterFiles {
    let (header, data) = open(&files.weights);
    let (mut kept_header, mut kept_data) = (json!({}), Vec::new());
    for (name, info) in header.as_object().expect("a header") {
        if name == "__metadata__" || !keep(name) {
            continue;
        }
        let offset = |index: usize| info["data_offsets"][index].as_u64().expect("offset") as usize;
        let start = kept_data.len();
        kept_data.extend_from_slice(&data[offset(0)..offset(1)]);
        kept_header[name] = info.clone();
        kept_header[name]["data_offsets"] = json!([start, kept_data.len()]);
    }
    AdapterFiles { config: files.config.clone(), weights: close(&kept_header, &kept_data) }
}

/// Spoils the golden adapter of `llama` and checks that the refusal has all the `expected` parts.
fn refuse(spoil: impl FnOnce(&mut AdapterFiles), expected: &[&str]) {
    let model = model("llama");
    let mut files = adapter_files(&golden_folder("llama"));
    spoil(&mut files);
    let error = Adapter::from_peft(&files, model.config(), model.digest()).expect_err("a bad adapter").to_string();
    for part in expected {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
}

fn refuse_config(field: &str, value: Value, expected: &[&str]) {
    let edit = |files: &mut AdapterFiles| {
        let mut config: Value = serde_json::from_slice(&files.config).expect("JSON");
        config[field] = value;
        files.config = config.to_string().into_bytes();
    };
    refuse(edit, &[&["adapter_config.json"], expected].concat());
}

#[test]
fn unsupported_options_are_refused_by_name() {
    refuse_config("peft_type", json!("IA3"), &["peft_type \"IA3\""]);
    refuse_config("task_type", json!("SEQ_CLS"), &["task_type \"SEQ_CLS\""]);
    refuse_config("use_dora", json!(true), &["`use_dora` = true"]);
    refuse_config("bias", json!("lora_only"), &["bias \"lora_only\""]);
    refuse_config("lora_bias", json!(true), &["`lora_bias`"]);
    refuse_config("fan_in_fan_out", json!(true), &["`fan_in_fan_out`"]);
    refuse_config("modules_to_save", json!(["lm_head"]), &["`modules_to_save`", "lm_head"]);
    refuse_config("layer_replication", json!([[0, 2]]), &["`layer_replication`"]);
    refuse_config("trainable_token_indices", json!([1]), &["`trainable_token_indices`"]);
    refuse_config("alora_invocation_tokens", json!([1]), &["`alora_invocation_tokens`"]);
    refuse_config("an_option_of_next_year", json!(2), &["`an_option_of_next_year` = 2"]);
    refuse_config("init_lora_weights", json!("pissa"), &["init_lora_weights \"pissa\""]);
    refuse_config("target_modules", json!(["q_proj", "embed_tokens"]), &["target module \"embed_tokens\""]);
    refuse_config("rank_pattern", json!({"^layers.*": 3}), &["regular expression", "rank_pattern"]);
    refuse_config("use_rslora", json!("yes"), &["`use_rslora` is \"yes\", not true or false"]);
    refuse_config("r", json!(0), &["`r` is 0, not a rank from 1 to 256"]);
    refuse_config("r", json!(100_000), &["`r` is 100000"]);
    refuse_config("lora_alpha", json!("much"), &["`lora_alpha` is \"much\""]);
    refuse_config("lora_alpha", json!(1e30), &["`lora_alpha`"]);
    refuse(|files| files.config = b"{".to_vec(), &["adapter_config.json is not valid JSON"]);
    refuse(|files| files.config = vec![b' '; 2 << 20], &["adapter_config.json has 2097152 bytes, more than"]);
}

#[test]
fn tensors_that_do_not_fit_are_refused() {
    refuse_config_shape("r", json!(8), &["down_proj.lora_A.weight` has shape [4, 104], expected [8, 104]"]);
    let q = "base_model.model.model.layers.0.self_attn.q_proj";
    let edit_header = |edit: fn(&mut Value)| {
        move |files: &mut AdapterFiles| {
            let (mut header, data) = open(&files.weights);
            edit(&mut header);
            files.weights = close(&header, &data);
        }
    };
    let rename = |from: &str, to: &str| {
        let (from, to) = (from.to_owned(), to.to_owned());
        move |files: &mut AdapterFiles| {
            let (mut header, data) = open(&files.weights);
            let tensors = header.as_object_mut().expect("a header");
            let info = tensors.remove(&from).expect("the tensor");
            tensors.insert(to, info);
            files.weights = close(&header, &data);
        }
    };
    let a = format!("{q}.lora_A.weight");
    let unexpected = |to: &str| refuse(rename(&a, to), &[&format!("`{to}` has no place"), "seven projections"]);
    unexpected("base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight");
    unexpected("base_model.model.model.layers.00.self_attn.q_proj.lora_A.weight");
    unexpected("base_model.model.model.layers.0.mlp.q_proj.lora_A.weight");
    unexpected("base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector");
    unexpected("base_model.model.lm_head.lora_A.weight");
    let without = |end: &'static str| {
        move |files: &mut AdapterFiles| {
            *files = keep_tensors(files, |name| {
                !(name.starts_with("base_model.model.model.layers.0.self_attn.q_proj") && name.ends_with(end))
            })
        }
    };
    refuse(without("lora_A.weight"), &["q_proj.lora_A.weight` of the same rank is missing"]);
    refuse(without("lora_B.weight"), &["q_proj.lora_B.weight` of the same rank is missing"]);
    refuse(|files| *files = keep_tensors(files, |_| false), &["no LoRA matrices"]);
    let swap_shape = |header: &mut Value| {
        let name = "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight";
        header[name]["shape"] = json!([4, 48]);
    };
    refuse(edit_header(swap_shape), &["down_proj.lora_B.weight` has shape [4, 48], expected [48, 4]"]);
}

fn refuse_config_shape(field: &str, value: Value, expected: &[&str]) {
    let edit = |files: &mut AdapterFiles| {
        let mut config: Value = serde_json::from_slice(&files.config).expect("JSON");
        config[field] = value;
        files.config = config.to_string().into_bytes();
    };
    refuse(edit, &[&["adapter_model.safetensors"], expected].concat());
}

#[test]
fn damaged_files_are_refused() {
    refuse(|files| files.weights.clear(), &["adapter_model.safetensors is damaged: 0 bytes are too few"]);
    refuse(|files| files.weights.truncate(files.weights.len() - 4), &["cut short in tensor `"]);
    refuse(|files| files.weights.push(0), &["is damaged"]);
    refuse(
        |files| files.weights[..8].copy_from_slice(&u64::MAX.to_le_bytes()),
        &["the header of adapter_model.safetensors has 18446744073709551615 bytes, more than"],
    );
    let claim = (ADAPTER_HEADER_BYTES_MAX - 1).to_le_bytes();
    refuse(|files| files.weights[..8].copy_from_slice(&claim), &["does not fit in a file"]);
    let not_finite = |files: &mut AdapterFiles| {
        let end = files.weights.len();
        files.weights[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    };
    refuse(not_finite, &["not finite"]);
    refuse(|files| files.weights = b"\x80\x02}q\x00.".to_vec(), &["is damaged"]);
}

#[test]
fn an_adapter_of_another_base_is_refused() {
    let model = model("llama");
    let adapter = Adapter::new_trainable(model.config(), 2, 4.0, 0);
    let files = adapter.to_peft(Digest([7; 32]), "another");
    let error = Adapter::from_peft(&files, model.config(), model.digest()).expect_err("another base").to_string();
    assert!(error.contains(&Digest([7; 32]).to_string()) && error.contains(&model.digest().to_string()), "{error}");
    let other = self::model("qwen2");
    let files = adapter_files(&golden_folder("llama"));
    let error = Adapter::from_peft(&files, other.config(), other.digest()).expect_err("another shape").to_string();
    assert!(error.contains("expected"), "{error}");
}
