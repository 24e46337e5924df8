//! A loaded model: configuration, tokenizer and packed weights of one base, immutable and shared by all threads.

use std::path::Path;
use std::sync::Arc;

use atelier_kernels::{Compute, RopeTable, WeightFormat};

use crate::checkpoint::Checkpoint;
use crate::digest::FieldHasher;
use crate::weights::Weights;
use crate::{Config, Digest, KvCache, ModelError, Tokenizer};

/// How to hold the weights.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    /// bf16 (as most checkpoints) or int8 with one scale per row and group (half the memory traffic).
    pub format: WeightFormat,
    /// Also pack the transposed weights that the backward pass needs; doubles the memory or more.
    pub with_backward: bool,
}

/// One base model. `Send + Sync`; every method takes `&self`, so any number of threads can share it in an `Arc`.
pub struct Model {
    pub(crate) compute: Arc<Compute>,
    pub(crate) config: Config,
    pub(crate) weights: Weights,
    pub(crate) rope: RopeTable, // positions 0..context_tokens_max
    tokenizer: Tokenizer,
    digest: Digest,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("config", &self.config).field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl Model {
    /// Reads a folder in Hugging Face layout: `config.json`, `tokenizer.json`, and `model.safetensors` or its shards
    /// with `model.safetensors.index.json`.
    ///
    /// # Errors
    /// Anything missing, damaged or not supported, by name.
    pub fn load(compute: Arc<Compute>, folder: &Path, options: LoadOptions) -> Result<Self, ModelError> {
        let mut hasher = FieldHasher::new("atelier base model 1");
        let config = Config::load(folder, &mut hasher)?;
        let tokenizer = Tokenizer::load(folder, &mut hasher)?;
        tokenizer.check_fits(folder, config.vocab_size)?;
        let checkpoint = Checkpoint::open(folder)?;
        let weights = Weights::load(&compute, checkpoint, &config, options, &mut hasher)?;
        let rope = RopeTable::new(config.head_dim, config.rope_theta, config.context_tokens_max);
        Ok(Self { compute, config, weights, rope, tokenizer, digest: hasher.finish() })
    }

    /// The shapes and constants of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Digest of configuration, tokenizer and weights as they are in the files; the same for one file and for shards,
    /// and whatever the format the weights are held in.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What the model computes with.
    pub fn compute(&self) -> &Arc<Compute> {
        &self.compute
    }

    /// Bytes that the packed weights take.
    pub fn weight_bytes(&self) -> usize {
        self.weights.bytes()
    }

    /// An empty cache of `blocks` blocks of [`crate::KV_BLOCK_TOKENS`] tokens.
    pub fn new_kv_cache(&self, blocks: usize) -> KvCache {
        KvCache::new(&self.config, blocks)
    }
}
