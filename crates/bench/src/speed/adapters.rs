//! Random adapters under made-up digests: what serving one costs does not depend on what it has learned.

use std::collections::HashMap;

use atelier_engine::AdapterSource;
use atelier_model::{Adapter, Config, Digest};

use crate::random::SplitMix64;

/// Rank of every adapter in the figures.
pub const RANK: usize = 16;

/// As the recipe has it.
const ALPHA: f32 = 32.0;

/// Size of B's entries: large enough to move every row, small enough that nothing overflows.
const B_SPAN: f32 = 1e-3;

/// Adapters by digest.
pub struct RandomAdapters(HashMap<Digest, Adapter>);

impl RandomAdapters {
    /// `count` different ones on all seven projections.
    pub fn new(config: &Config, count: usize) -> RandomAdapters {
        RandomAdapters((0..count).map(|index| (digest(index), random_adapter(config, index as u64))).collect())
    }

    /// Bytes of all.
    pub fn bytes(&self) -> usize {
        self.0.values().map(Adapter::bytes).sum()
    }
}

impl AdapterSource for RandomAdapters {
    fn load(&self, digest: Digest) -> Result<Adapter, String> {
        self.0.get(&digest).cloned().ok_or_else(|| format!("there is no adapter {digest}"))
    }
}

/// Name of the adapter with that index.
pub fn digest(index: usize) -> Digest {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(index as u64 + 1).to_le_bytes());
    Digest(bytes)
}

/// As after training: neither A nor B is zero.
pub fn random_adapter(config: &Config, seed: u64) -> Adapter {
    let mut adapter = Adapter::new_trainable(config, RANK, ALPHA, seed);
    let mut random = SplitMix64(seed);
    for (_, _, pair) in adapter.pairs_mut() {
        pair.b_t.iter_mut().for_each(|b| *b = B_SPAN * random.signed_unit());
    }
    adapter
}
