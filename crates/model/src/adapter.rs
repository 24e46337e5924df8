//! LoRA adapters in memory (Hu et al. 2021, <https://arxiv.org/abs/2106.09685>): for a projection `y = x Wᵀ`, a pair
//! (A, B) of rank r adds `scale · (x Aᵀ) Bᵀ`. B is held transposed, because that is how every kernel reads it.

use std::ops::Range;

use atelier_kernels::{LoraMatrices, LoraProduct};
use half::bf16;
use half::slice::HalfFloatSliceExt;

use crate::Config;

/// The seven projections of a transformer block that an adapter can change, in the order of the computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Projection {
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
    /// Attention output.
    O,
    /// Gate of the feed-forward block.
    Gate,
    /// Up projection of the feed-forward block.
    Up,
    /// Down projection of the feed-forward block.
    Down,
}

impl Projection {
    /// All seven, in the order of the computation.
    pub const ALL: [Self; 7] = [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// (n_out, n_in) of the weight.
    pub fn shape(self, config: &Config) -> (usize, usize) {
        let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
        match self {
            Self::Q => (config.q_width(), hidden),
            Self::K | Self::V => (config.kv_width(), hidden),
            Self::O => (hidden, config.q_width()),
            Self::Gate | Self::Up => (intermediate, hidden),
            Self::Down => (hidden, intermediate),
        }
    }

    /// The module's name as PEFT's `target_modules` writes it.
    pub fn peft_name(self) -> &'static str {
        match self {
            Self::Q => "q_proj",
            Self::K => "k_proj",
            Self::V => "v_proj",
            Self::O => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }

    /// The module's path inside its layer.
    pub(crate) fn module_path(self) -> String {
        let block = match self {
            Self::Q | Self::K | Self::V | Self::O => "self_attn",
            Self::Gate | Self::Up | Self::Down => "mlp",
        };
        format!("{block}.{}", self.peft_name())
    }
}

/// What an adapter's matrices hold: f32 while it is trained and in its file, bf16 while it is served.
pub trait AdapterElement: Copy + Send + Sync + 'static {
    /// The two matrices as the kernels take them.
    fn matrices<'a>(a: &'a [Self], b_t: &'a [Self]) -> LoraMatrices<'a>;
}

impl AdapterElement for f32 {
    fn matrices<'a>(a: &'a [f32], b_t: &'a [f32]) -> LoraMatrices<'a> {
        LoraMatrices::F32 { a, b_t }
    }
}

impl AdapterElement for bf16 {
    fn matrices<'a>(a: &'a [bf16], b_t: &'a [bf16]) -> LoraMatrices<'a> {
        LoraMatrices::Bf16 { a, b_t }
    }
}

/// The two small matrices of one projection.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraPair<W = f32> {
    /// Rank r ≥ 1.
    pub rank: usize,
    /// What the product is multiplied with: alpha / r.
    pub scale: f32,
    /// A, (rank, n_in).
    pub a: Vec<W>,
    /// Bᵀ, (rank, n_out).
    pub b_t: Vec<W>,
}

impl<W: AdapterElement> LoraPair<W> {
    /// What it adds to the projection of these rows.
    pub(crate) fn product(&self, rows: Range<usize>) -> LoraProduct<'_> {
        LoraProduct { rows, matrices: W::matrices(&self.a, &self.b_t), scale: self.scale, rank: self.rank }
    }
}

/// One adapter: a pair or nothing for each projection of each layer. `Send + Sync`.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter<W = f32> {
    pairs: Vec<Option<LoraPair<W>>>, // (layer_count, 7)
}

/// As it is served. Rounding to bf16 changes each number by at most one part in 512, which is what the base's weights
/// are rounded by, and halves what sixteen adapters read for one token each.
pub type ServedAdapter = Adapter<bf16>;

impl Adapter {
    /// A fresh adapter over all projections, as PEFT initialises it: A Kaiming-uniform with a = √5, that is uniform in
    /// ±1/√n_in, and B zero, so that it changes nothing until it is trained. The same seed gives the same bits.
    ///
    /// # Panics
    /// If `rank` is zero.
    pub fn new_trainable(config: &Config, rank: usize, alpha: f32, seed: u64) -> Self {
        assert!(rank > 0, "a LoRA adapter has a rank of at least 1");
        let mut random = SplitMix64(seed);
        let pair = |random: &mut SplitMix64, projection: Projection| {
            let (n_out, n_in) = projection.shape(config);
            let bound = 1.0 / (n_in as f32).sqrt();
            LoraPair {
                rank,
                scale: alpha / rank as f32,
                a: (0..rank * n_in).map(|_| bound * random.next_signed_unit()).collect(),
                b_t: vec![0.0; rank * n_out],
            }
        };
        let layer = |random: &mut SplitMix64| Projection::ALL.map(|projection| Some(pair(random, projection)));
        Self { pairs: (0..config.layer_count).flat_map(|_| layer(&mut random)).collect() }
    }

    /// An adapter that changes nothing yet; the PEFT reader fills it.
    pub(crate) fn empty(config: &Config) -> Self {
        Self { pairs: vec![None; config.layer_count * Projection::ALL.len()] }
    }

    pub(crate) fn set(&mut self, layer: usize, projection: Projection, pair: LoraPair) {
        self.pairs[index(layer, projection)] = Some(pair);
    }

    /// The adapter to serve.
    pub fn to_served(&self) -> ServedAdapter {
        let round = |values: &[f32]| {
            let mut rounded = vec![bf16::ZERO; values.len()];
            rounded.convert_from_f32_slice(values);
            rounded
        };
        let pair =
            |pair: &LoraPair| LoraPair { rank: pair.rank, scale: pair.scale, a: round(&pair.a), b_t: round(&pair.b_t) };
        Adapter { pairs: self.pairs.iter().map(|one| one.as_ref().map(pair)).collect() }
    }

    /// As [`Adapter::pairs`], for the optimiser.
    pub fn pairs_mut(&mut self) -> impl Iterator<Item = (usize, Projection, &mut LoraPair)> {
        self.pairs.iter_mut().enumerate().filter_map(|(at, pair)| {
            let (layer, projection) = place(at);
            pair.as_mut().map(|pair| (layer, projection, pair))
        })
    }
}

impl<W> Adapter<W> {
    /// Number of layers of the base it belongs to.
    pub fn layer_count(&self) -> usize {
        self.pairs.len() / Projection::ALL.len()
    }

    /// The pair of one projection, if the adapter changes it.
    pub fn pair(&self, layer: usize, projection: Projection) -> Option<&LoraPair<W>> {
        self.pairs[index(layer, projection)].as_ref()
    }

    /// The pairs that exist, by layer, then projection: always in the same order.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, Projection, &LoraPair<W>)> {
        self.pairs.iter().enumerate().filter_map(|(at, pair)| {
            let (layer, projection) = place(at);
            pair.as_ref().map(|pair| (layer, projection, pair))
        })
    }

    /// Bytes of all matrices.
    pub fn bytes(&self) -> usize {
        self.pairs().map(|(_, _, pair)| size_of_val(&pair.a[..]) + size_of_val(&pair.b_t[..])).sum()
    }

    /// The largest rank of all pairs; 0 for an adapter without pairs.
    pub fn rank(&self) -> usize {
        self.pairs().map(|(_, _, pair)| pair.rank).max().unwrap_or(0)
    }
}

/// Gradients of one pair, in the layout of [`LoraPair`].
#[derive(Debug, Clone, PartialEq)]
pub struct PairGradient {
    /// dA, (rank, n_in).
    pub a: Vec<f32>,
    /// dBᵀ, (rank, n_out).
    pub b_t: Vec<f32>,
}

/// Gradients of an adapter, pair for pair.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterGradients {
    pairs: Vec<Option<PairGradient>>, // (layer_count, 7)
}

impl AdapterGradients {
    /// Zeros in the shape of `adapter`.
    pub fn zeros_like(adapter: &Adapter) -> Self {
        let zeros = |pair: &LoraPair| PairGradient { a: vec![0.0; pair.a.len()], b_t: vec![0.0; pair.b_t.len()] };
        Self { pairs: adapter.pairs.iter().map(|pair| pair.as_ref().map(zeros)).collect() }
    }

    /// The gradient of one projection's pair.
    pub fn pair(&self, layer: usize, projection: Projection) -> Option<&PairGradient> {
        self.pairs[index(layer, projection)].as_ref()
    }

    /// As [`AdapterGradients::pair`], to write.
    pub fn pair_mut(&mut self, layer: usize, projection: Projection) -> Option<&mut PairGradient> {
        self.pairs[index(layer, projection)].as_mut()
    }

    /// The gradients that exist, in the order of [`Adapter::pairs`].
    pub fn pairs(&self) -> impl Iterator<Item = (usize, Projection, &PairGradient)> {
        self.pairs.iter().enumerate().filter_map(|(at, pair)| {
            let (layer, projection) = place(at);
            pair.as_ref().map(|pair| (layer, projection, pair))
        })
    }

    /// As [`AdapterGradients::pairs`], to clip or clear.
    pub fn pairs_mut(&mut self) -> impl Iterator<Item = (usize, Projection, &mut PairGradient)> {
        self.pairs.iter_mut().enumerate().filter_map(|(at, pair)| {
            let (layer, projection) = place(at);
            pair.as_mut().map(|pair| (layer, projection, pair))
        })
    }
}

fn index(layer: usize, projection: Projection) -> usize {
    layer * Projection::ALL.len() + projection as usize
}

fn place(index: usize) -> (usize, Projection) {
    (index / Projection::ALL.len(), Projection::ALL[index % Projection::ALL.len()])
}

/// Vigna's SplitMix64: a stream of 64-bit numbers fixed by its seed, on every machine.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [-1, 1), in steps of 2⁻²³.
    fn next_signed_unit(&mut self) -> f32 {
        const STEPS: f32 = (1u32 << 24) as f32;
        let step = (self.next_u64() >> 40) as f32; // 0..2²⁴, exact in f32
        2.0 * (step / STEPS) - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix_matches_its_reference_stream() {
        let mut random = SplitMix64(1_234_567);
        assert_eq!(random.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(random.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn fresh_adapter_is_seeded_bounded_and_silent() {
        let config = Config::example();
        let one = Adapter::new_trainable(&config, 3, 6.0, 9);
        assert_eq!(one, Adapter::new_trainable(&config, 3, 6.0, 9));
        assert_ne!(one, Adapter::new_trainable(&config, 3, 6.0, 10));
        assert_eq!(one.pairs().count(), config.layer_count * 7);
        assert_eq!((one.rank(), one.layer_count()), (3, config.layer_count));
        let mut bytes = 0;
        for (layer, projection, pair) in one.pairs() {
            let (n_out, n_in) = projection.shape(&config);
            assert_eq!((pair.a.len(), pair.b_t.len()), (3 * n_in, 3 * n_out));
            assert_eq!(pair.scale, 2.0);
            let bound = 1.0 / (n_in as f32).sqrt();
            assert!(pair.a.iter().all(|a| a.abs() <= bound));
            let mean = pair.a.iter().sum::<f32>() / pair.a.len() as f32;
            assert!(mean.abs() < bound / 2.0, "{layer} {projection:?} {mean}");
            assert!(pair.b_t.iter().all(|&b| b == 0.0));
            bytes += 4 * (pair.a.len() + pair.b_t.len());
        }
        assert_eq!(one.bytes(), bytes);
        let gradients = AdapterGradients::zeros_like(&one);
        let gradient_shapes = gradients.pairs().map(|(layer, projection, pair)| (layer, projection, pair.a.len()));
        assert!(gradient_shapes.eq(one.pairs().map(|(layer, projection, pair)| (layer, projection, pair.a.len()))));
    }
}
