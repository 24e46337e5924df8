//! Base models of a given shape with random weights: speed does not depend on what a model knows.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use half::bf16;
use safetensors::Dtype;
use safetensors::tensor::View;
use serde_json::{Value, json};

use crate::host::write_whole;
use crate::random::SplitMix64;

/// Standard deviation of the weights, as models are initialised.
const WEIGHT_DEVIATION: f32 = 0.02;

/// Positions that the random models accept; bounds their table of rotary angles.
const CONTEXT_TOKENS: usize = 4_096;

/// Written last: a folder that has it is whole.
const STAMP: &str = "complete.txt";

/// Shape of a decoder in Hugging Face layout.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Name of the folder and of the model in tables.
    pub name: &'static str,
    /// `llama` or `qwen2`; the latter has biases on q, k and v.
    pub family: &'static str,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width inside the feed-forward block.
    pub intermediate: usize,
    /// Rows of the tied embedding.
    pub vocab: usize,
}

/// Work A of design/targets.md: 0.49 billion parameters.
pub const WORK_A: Shape = Shape {
    name: "random-0.5b",
    family: "qwen2",
    hidden: 896,
    layers: 24,
    heads: 14,
    kv_heads: 2,
    intermediate: 4_864,
    vocab: 151_936,
};

/// Work B of design/targets.md: 18.9 million parameters.
pub const WORK_B: Shape = Shape {
    name: "random-19m",
    family: "llama",
    hidden: 384,
    layers: 8,
    heads: 6,
    kv_heads: 2,
    intermediate: 1_024,
    vocab: 16_384,
};

/// So small that a completion of one token costs next to nothing: what is left is the gateway.
pub const TINY: Shape = Shape {
    name: "random-tiny",
    family: "llama",
    hidden: 64,
    layers: 1,
    heads: 2,
    kv_heads: 1,
    intermediate: 64,
    vocab: 16_384,
};

impl Shape {
    /// Writes the model under `scratch` unless it is there, with the tokenizer of `base`; gives its folder.
    pub fn write(&self, scratch: &Path, base: &Path) -> Result<PathBuf> {
        let folder = scratch.join(self.name);
        let config = serde_json::to_string_pretty(&self.config())?;
        if fs::read_to_string(folder.join(STAMP)).is_ok_and(|stamp| stamp == config) {
            return Ok(folder);
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        write_whole(&folder.join("config.json"), config.as_bytes())?;
        let tokenizer = base.join("tokenizer.json");
        fs::copy(&tokenizer, folder.join("tokenizer.json"))
            .with_context(|| format!("cannot copy {}", tokenizer.display()))?;
        safetensors::serialize_to_file(self.tensors(), None, &folder.join("model.safetensors"))
            .with_context(|| format!("cannot write the weights of {}", self.name))?;
        write_whole(&folder.join(STAMP), config.as_bytes())?;
        Ok(folder)
    }

    /// Weights without biases and norms, the tied embedding once.
    pub fn parameters(&self) -> usize {
        self.tensors().iter().filter(|(_, tensor)| tensor.shape.len() == 2).map(|(_, tensor)| tensor.len()).sum()
    }

    fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }

    fn config(&self) -> Value {
        let class = if self.family == "qwen2" { "Qwen2ForCausalLM" } else { "LlamaForCausalLM" };
        json!({
            "architectures": [class],
            "model_type": self.family,
            "vocab_size": self.vocab,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim(),
            "hidden_act": "silu",
            "max_position_embeddings": CONTEXT_TOKENS,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10_000.0,
            "tie_word_embeddings": true,
            "torch_dtype": "bfloat16",
        })
    }

    fn tensors(&self) -> Vec<(String, RandomTensor)> {
        let (hidden, kv_width) = (self.hidden, self.kv_heads * self.head_dim());
        let mut tensors = vec![("model.embed_tokens.weight".to_owned(), vec![self.vocab, hidden])];
        for layer in 0..self.layers {
            let blocks = [
                ("input_layernorm.weight", vec![hidden]),
                ("self_attn.q_proj.weight", vec![hidden, hidden]),
                ("self_attn.k_proj.weight", vec![kv_width, hidden]),
                ("self_attn.v_proj.weight", vec![kv_width, hidden]),
                ("self_attn.o_proj.weight", vec![hidden, hidden]),
                ("post_attention_layernorm.weight", vec![hidden]),
                ("mlp.gate_proj.weight", vec![self.intermediate, hidden]),
                ("mlp.up_proj.weight", vec![self.intermediate, hidden]),
                ("mlp.down_proj.weight", vec![hidden, self.intermediate]),
            ];
            let biases = [("q", hidden), ("k", kv_width), ("v", kv_width)]
                .map(|(projection, width)| (format!("self_attn.{projection}_proj.bias"), vec![width]));
            let biases = biases.into_iter().filter(|_| self.family == "qwen2");
            let all = blocks.into_iter().map(|(name, shape)| (name.to_owned(), shape)).chain(biases);
            tensors.extend(all.map(|(name, shape)| (format!("model.layers.{layer}.{name}"), shape)));
        }
        tensors.push(("model.norm.weight".to_owned(), vec![hidden]));
        let numbered = tensors.into_iter().enumerate();
        numbered
            .map(|(seed, (name, shape))| {
                let is_norm = name.ends_with("norm.weight");
                (name, RandomTensor { shape, seed: seed as u64, is_norm })
            })
            .collect()
    }
}

/// A bf16 tensor that is made when it is written.
struct RandomTensor {
    shape: Vec<usize>,
    seed: u64,
    /// Ones instead of random numbers.
    is_norm: bool,
}

impl RandomTensor {
    fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

impl View for RandomTensor {
    fn dtype(&self) -> Dtype {
        Dtype::BF16
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        if self.is_norm {
            return Cow::Owned(bf16::ONE.to_le_bytes().repeat(self.len()));
        }
        // Uniform with the wished deviation, 256 levels: eight weights from each 64 bits.
        let span = WEIGHT_DEVIATION * 3f32.sqrt();
        let levels: Vec<[u8; 2]> = (0..256u16)
            .map(|level| bf16::from_f32(span * ((f32::from(level) + 0.5) / 128.0 - 1.0)).to_le_bytes())
            .collect();
        let mut random = SplitMix64(self.seed);
        let mut bytes = Vec::with_capacity(self.data_len() + 16);
        while bytes.len() < self.data_len() {
            for level in random.next_u64().to_le_bytes() {
                bytes.extend_from_slice(&levels[usize::from(level)]);
            }
        }
        bytes.truncate(self.data_len());
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        2 * self.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use atelier_kernels::{Compute, Tier, WeightFormat};
    use atelier_model::{LoadOptions, Model};

    use super::*;

    #[test]
    fn shapes_have_the_parameters_that_the_targets_name() {
        assert_eq!(WORK_A.parameters() / 1_000_000, 493);
        assert_eq!(WORK_B.parameters() / 100_000, 188);
    }

    #[test]
    fn a_random_model_loads_and_is_the_same_each_time() {
        let base = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/atelier-base"));
        let shape = Shape { family: "qwen2", ..TINY };
        let digest = || {
            let scratch = tempfile::tempdir().expect("a temporary folder");
            let folder = shape.write(scratch.path(), base).expect("the model can be written");
            let compute = Arc::new(Compute::new(Tier::Portable, 1));
            let options = LoadOptions { format: WeightFormat::Bf16, with_backward: false };
            Model::load(compute, &folder, options).expect("the model loads").digest()
        };
        assert_eq!(digest(), digest());
    }
}
