//! What a caller asks of the engine.

use std::fmt;

use atelier_model::{ADAPTERS_PER_ROW_MAX, Digest};

/// The adapters that a request runs with: none, the tenant's, or the tenant's then the user's.
/// Two sets are the same when they hold the same digests in the same order.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdapterSet(Vec<Digest>);

impl AdapterSet {
    /// The base alone.
    pub fn none() -> AdapterSet {
        AdapterSet(Vec::new())
    }

    /// The given adapters in order. `None` if there are more than [`ADAPTERS_PER_ROW_MAX`] or one is named twice.
    pub fn try_of(digests: &[Digest]) -> Option<AdapterSet> {
        let repeated = digests.iter().enumerate().any(|(index, digest)| digests[..index].contains(digest));
        (digests.len() <= ADAPTERS_PER_ROW_MAX && !repeated).then(|| AdapterSet(digests.to_vec()))
    }

    /// The given adapters in order.
    ///
    /// # Panics
    /// If there are more than [`ADAPTERS_PER_ROW_MAX`] or one is named twice: see [`AdapterSet::try_of`].
    pub fn of(digests: &[Digest]) -> AdapterSet {
        AdapterSet::try_of(digests).expect("an adapter set holds at most two digests, each once")
    }

    /// The digests in the order in which they apply.
    pub fn digests(&self) -> &[Digest] {
        &self.0
    }

    /// True for the base alone.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for AdapterSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[")?;
        for (index, digest) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { " " };
            write!(f, "{separator}{:.8}", digest.to_string())?;
        }
        write!(f, "]")
    }
}

/// How the next token is chosen from the logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the most likely token; above 0, logits are divided by it before the draw.
    pub temperature: f32,
    /// The draw is limited to the fewest most likely tokens that hold this share of the probability; in (0, 1].
    pub top_p: f32,
    /// The draw is limited to this many most likely tokens; 0 = no limit.
    pub top_k: u32,
    /// The random number of a draw is a function of this seed and the token's position, and of nothing else.
    pub seed: u64,
}

impl Sampling {
    /// Always the most likely token.
    pub fn greedy() -> Sampling {
        Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, seed: 0 }
    }

    /// Names the parameter that is out of range, if one is.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return Some("temperature must be a finite number of at least 0");
        }
        if !(0.0..=1.0).contains(&self.top_p) {
            return Some("top_p must be between 0 and 1");
        }
        None
    }
}

/// One completion to make.
#[derive(Clone, Debug)]
pub struct CompletionJob {
    /// Token ids; at least one.
    pub prompt: Vec<u32>,
    /// What the base runs with.
    pub adapters: AdapterSet,
    /// The tenant's secret share of every prefix-cache key: two salts never share a cached block.
    pub cache_salt: [u8; 32],
    /// Whom the fair queue charges; opaque to the engine.
    pub client: u64,
    /// The client's share of the machine relative to others; at least 1.
    pub weight: u32,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The completion ends before the first of these that appears; none may be empty.
    pub stop: Vec<String>,
    /// Most tokens to generate; 0 reads the prompt only.
    pub tokens_max: usize,
    /// With `Some(k)` each token carries its log probability and the `k` most likely alternatives.
    pub logprobs: Option<u8>,
    /// Also report the log probability of each prompt token (with the same `k`); reads the whole prompt anew.
    pub prompt_logprobs: bool,
}

impl CompletionJob {
    /// Positions whose keys and values the job can need: the last generated token is never fed back.
    pub(crate) fn positions_max(&self) -> usize {
        self.prompt.len() + self.tokens_max.saturating_sub(1)
    }
}
