//! LoRA adapters in memory (Hu et al. 2021, <https://arxiv.org/abs/2106.09685>): for a projection `y = x Wᵀ`, a pair
//! (A, B) of rank r adds `scale · (x Aᵀ) Bᵀ`. B is held transposed, because that is how every kernel reads it.

use std::ops::Range;

use atelier_kernels::{LoraMatrices, LoraProduct};

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

/// The two small matrices of one projection, in one form or another.
pub trait AdapterPair: Send + Sync + 'static {
    /// Rank r ≥ 1.
    fn rank(&self) -> usize;
    /// Bytes of both.
    fn bytes(&self) -> usize;
    /// What they add to the projection of these rows.
    fn product(&self, rows: Range<usize>) -> LoraProduct<'_>;
}

/// As it is trained, and in its file.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraPair {
    /// Rank r ≥ 1.
    pub rank: usize,
    /// What the product is multiplied with: alpha / r.
    pub scale: f32,
    /// A, (rank, n_in).
    pub a: Vec<f32>,
    /// Bᵀ, (rank, n_out).
    pub b_t: Vec<f32>,
}

impl AdapterPair for LoraPair {
    fn rank(&self) -> usize {
        self.rank
    }

    fn bytes(&self) -> usize {
        size_of_val(&self.a[..]) + size_of_val(&self.b_t[..])
    }

    fn product(&self, rows: Range<usize>) -> LoraProduct<'_> {
        let matrices = LoraMatrices::F32 { a: &self.a, b_t: &self.b_t };
        LoraProduct { rows, matrices, scale: self.scale, rank: self.rank }
    }
}

/// As it is served: each row of A and Bᵀ in 255 equal steps, so that no number moves by more than one part in 254 of its
/// row's largest. What sixteen adapters read for one token each is a quarter of what it is in f32.
#[derive(Debug, Clone, PartialEq)]
pub struct ServedPair {
    /// Rank r ≥ 1.
    pub rank: usize,
    /// What the product is multiplied with: alpha / r.
    pub scale: f32,
    /// Codes of A, (rank, n_in).
    pub a: Vec<i8>,
    /// Codes of Bᵀ, (rank, n_out).
    pub b_t: Vec<i8>,
    /// (rank): a step of A's row times one of Bᵀ's.
    pub steps: Vec<f32>,
}

impl ServedPair {
    fn of(pair: &LoraPair) -> ServedPair {
        let LoraPair { rank, scale, .. } = *pair;
        let ((a, a_steps), (b_t, b_steps)) = (coded(&pair.a, rank), coded(&pair.b_t, rank));
        let steps = a_steps.iter().zip(&b_steps).map(|(a, b)| a * b).collect();
        ServedPair { rank, scale, a, b_t, steps }
    }
}

impl AdapterPair for ServedPair {
    fn rank(&self) -> usize {
        self.rank
    }

    fn bytes(&self) -> usize {
        self.a.len() + self.b_t.len() + size_of_val(&self.steps[..])
    }

    fn product(&self, rows: Range<usize>) -> LoraProduct<'_> {
        let matrices = LoraMatrices::Int8 { a: &self.a, b_t: &self.b_t, steps: &self.steps };
        LoraProduct { rows, matrices, scale: self.scale, rank: self.rank }
    }
}

/// The pair that [`ServedPair::of`] stands for.
fn rounded(pair: &LoraPair) -> LoraPair {
    let values = |values: &[f32]| {
        let (codes, steps) = coded(values, pair.rank);
        let rows = codes.chunks_exact(codes.len() / pair.rank).zip(steps);
        rows.flat_map(|(codes, step)| codes.iter().map(move |&code| f32::from(code) * step)).collect()
    };
    LoraPair { a: values(&pair.a), b_t: values(&pair.b_t), ..*pair }
}

/// Codes of a matrix's values and the step of each of its rows.
fn coded(values: &[f32], rows: usize) -> (Vec<i8>, Vec<f32>) {
    const CODE_MAX: f32 = 127.0;
    let step = |row: &[f32]| row.iter().fold(0.0, |max: f32, value| max.max(value.abs())) / CODE_MAX;
    let rows = values.chunks_exact(values.len() / rows);
    let steps: Vec<f32> = rows.clone().map(step).collect();
    // A row of zeros has no step, and codes that are zero.
    let code = |value: f32, step: f32| if step > 0.0 { (value / step).round() as i8 } else { 0 };
    let codes = rows.zip(&steps).flat_map(|(row, &step)| row.iter().map(move |&value| code(value, step))).collect();
    (codes, steps)
}

/// One adapter: a pair or nothing for each projection of each layer. `Send + Sync`.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter<P = LoraPair> {
    pairs: Vec<Option<P>>, // (layer_count, 7)
}

/// As it is served.
pub type ServedAdapter = Adapter<ServedPair>;

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
        Adapter { pairs: self.pairs.iter().map(|pair| pair.as_ref().map(ServedPair::of)).collect() }
    }

    /// The same numbers as [`Adapter::to_served`], in f32: what is judged is what is served.
    pub fn rounded(&self) -> Adapter {
        Adapter { pairs: self.pairs.iter().map(|pair| pair.as_ref().map(rounded)).collect() }
    }

    /// As [`Adapter::pairs`], for the optimiser.
    pub fn pairs_mut(&mut self) -> impl Iterator<Item = (usize, Projection, &mut LoraPair)> {
        self.pairs.iter_mut().enumerate().filter_map(|(at, pair)| {
            let (layer, projection) = place(at);
            pair.as_mut().map(|pair| (layer, projection, pair))
        })
    }
}

impl<P: AdapterPair> Adapter<P> {
    /// Number of layers of the base it belongs to.
    pub fn layer_count(&self) -> usize {
        self.pairs.len() / Projection::ALL.len()
    }

    /// The pair of one projection, if the adapter changes it.
    pub fn pair(&self, layer: usize, projection: Projection) -> Option<&P> {
        self.pairs[index(layer, projection)].as_ref()
    }

    /// The pairs that exist, by layer, then projection: always in the same order.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, Projection, &P)> {
        self.pairs.iter().enumerate().filter_map(|(at, pair)| {
            let (layer, projection) = place(at);
            pair.as_ref().map(|pair| (layer, projection, pair))
        })
    }

    /// Bytes of all matrices.
    pub fn bytes(&self) -> usize {
        self.pairs().map(|(_, _, pair)| pair.bytes()).sum()
    }

    /// The largest rank of all pairs; 0 for an adapter without pairs.
    pub fn rank(&self) -> usize {
        self.pairs().map(|(_, _, pair)| pair.rank()).max().unwrap_or(0)
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
