//! Losses and LoRA gradients against PyTorch + PEFT (golden/README.md says how they were made), against finite
//! differences, and against themselves.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::Arc;

use atelier_kernels::{Compute, Tier, WeightFormat};
use atelier_model::{
    Adapter, AdapterFiles, AdapterGradients, Dropout, LoadOptions, Model, ModelError, Projection, TrainBatch,
    TrainScratch,
};
use safetensors::SafeTensors;

const FAMILIES: [&str; 3] = ["llama", "qwen2", "qwen3"];

/// Largest difference of one token's loss, in nats. The f32 tiers differ from PyTorch by the order of additions; the
/// bf16 tier also rounds every product's input to 8 bits of mantissa.
fn loss_tolerance(tier: Tier) -> f32 {
    if tier == Tier::Avx512Bf16 { 1e-1 } else { 2e-5 }
}

/// Largest norm of the difference of one gradient tensor, relative to its norm.
fn gradient_tolerance(tier: Tier) -> f64 {
    if tier == Tier::Avx512Bf16 { 5e-2 } else { 2e-5 }
}

/// Largest relative difference to a central difference of f32 losses with [`DIFFERENCE_STEP`].
const DIFFERENCE_TOLERANCE: f64 = 5e-3;
const DIFFERENCE_STEP: f32 = 2e-2;

struct Golden {
    folder: PathBuf,
    bytes: Vec<u8>,
}

impl Golden {
    fn open(family: &str) -> Golden {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(family);
        let bytes = std::fs::read(folder.join("golden.safetensors")).expect("golden file");
        Golden { folder, bytes }
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let tensors = SafeTensors::deserialize(&self.bytes).expect("golden file");
        let data = tensors.tensor(name).unwrap_or_else(|_| panic!("{name} in the golden file")).data();
        data.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    }

    fn ints(&self, name: &str) -> Vec<i32> {
        self.floats(name).into_iter().map(|bits| bits.to_bits() as i32).collect()
    }

    fn model(&self, tier: Tier, threads: usize) -> Model {
        let options = LoadOptions { format: WeightFormat::Bf16, with_backward: true };
        Model::load(Arc::new(Compute::new(tier, threads)), &self.folder, options).expect("tiny model loads")
    }

    fn adapter(&self, model: &Model) -> Adapter {
        let read = |name: &str| std::fs::read(self.folder.join("adapter").join(name)).expect("adapter file");
        let files = AdapterFiles { config: read("adapter_config.json"), weights: read("adapter_model.safetensors") };
        Adapter::from_peft(&files, model.config(), model.digest()).expect("PEFT's adapter loads")
    }

    fn batch(&self) -> Batch {
        let lengths = self.ints("sequence_tokens");
        let mut end = 0;
        let mut sequence = |length: i32| {
            end += length as usize;
            end - length as usize..end
        };
        Batch {
            tokens: self.ints("tokens").into_iter().map(|token| token as u32).collect(),
            targets: self.ints("targets"),
            sequences: lengths.into_iter().map(&mut sequence).collect(),
        }
    }
}

struct Batch {
    tokens: Vec<u32>,
    targets: Vec<i32>,
    sequences: Vec<Range<usize>>,
}

impl Batch {
    fn view(&self) -> TrainBatch<'_> {
        TrainBatch { tokens: &self.tokens, targets: &self.targets, sequences: &self.sequences }
    }
}

fn losses(model: &Model, adapters: &[&Adapter], batch: &Batch) -> Vec<f32> {
    let mut losses = Vec::new();
    model.token_losses(&mut TrainScratch::new(), adapters, &batch.view(), &mut losses).expect("batch fits");
    losses
}

fn gradients(model: &Model, adapter: &Adapter, dropout: Option<Dropout>, batch: &Batch) -> (f64, AdapterGradients) {
    let mut gradients = AdapterGradients::zeros_like(adapter);
    let mut scratch = TrainScratch::new();
    let sum =
        model.loss_and_gradients(&mut scratch, adapter, dropout, &batch.view(), &mut gradients).expect("batch fits");
    assert_eq!(sum.tokens, batch.targets.iter().filter(|&&target| target >= 0).count());
    (sum.mean(), gradients)
}

fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(expected).map(|(&f, &e)| f64::from(f) - f64::from(e)));
    difference / norm(&mut expected.iter().map(|&e| f64::from(e))).max(f64::MIN_POSITIVE)
}

fn transposed(values: &[f32], rows: usize) -> Vec<f32> {
    let columns = values.len() / rows;
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}

fn peft_name(layer: usize, projection: Projection, matrix: &str) -> String {
    let block = match projection {
        Projection::Gate | Projection::Up | Projection::Down => "mlp",
        _ => "self_attn",
    };
    format!("base_model.model.model.layers.{layer}.{block}.{}.lora_{matrix}.weight", projection.peft_name())
}

fn fill(values: &mut [f32], seed: u64) {
    let mut state = seed;
    for value in values {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *value = ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 0.2;
    }
}

/// An adapter whose B is not zero, so that every gradient is at work.
fn busy_adapter(model: &Model, rank: usize) -> Adapter {
    let mut adapter = Adapter::new_trainable(model.config(), rank, 6.0, 3);
    for (index, (_, _, pair)) in adapter.pairs_mut().enumerate() {
        fill(&mut pair.b_t, index as u64);
    }
    adapter
}

#[test]
fn losses_and_every_gradient_match_pytorch_in_every_tier() {
    for family in FAMILIES {
        let golden = Golden::open(family);
        let batch = golden.batch();
        for tier in Tier::all_available() {
            let model = golden.model(tier, 2);
            let adapter = golden.adapter(&model);
            for (name, adapters) in [("base.losses", &[][..]), ("adapter.losses", &[&adapter][..])] {
                let (found, expected) = (losses(&model, adapters, &batch), golden.floats(name));
                for (row, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    let difference = (found - expected).abs();
                    assert!(difference <= loss_tolerance(tier), "{family} {tier} {name} {row}: {found} {expected}");
                }
            }
            let (loss, gradients) = gradients(&model, &adapter, None, &batch);
            let expected = golden.floats("adapter.loss")[0];
            assert!((loss as f32 - expected).abs() <= loss_tolerance(tier), "{family} {tier}: {loss} {expected}");
            let mut checked = 0;
            for (layer, projection, gradient) in gradients.pairs() {
                let rank = adapter.pair(layer, projection).expect("same layout").rank;
                for (matrix, found) in [("A", gradient.a.clone()), ("B", transposed(&gradient.b_t, rank))] {
                    let name = peft_name(layer, projection, matrix);
                    let error = relative_error(&found, &golden.floats(&format!("gradient.{name}")));
                    assert!(error <= gradient_tolerance(tier), "{family} {tier} {name}: {error:e}");
                    checked += 1;
                }
            }
            assert_eq!(checked, model.config().layer_count * 14);
        }
    }
}

/// Along the gradient of each tensor, the loss rises as fast as the gradient says; with dropout too, whose masks
/// forward and backward must agree on.
#[test]
fn gradients_match_finite_differences() {
    for family in FAMILIES {
        let golden = Golden::open(family);
        let (model, batch) = (golden.model(Tier::Portable, 1), golden.batch());
        let adapter = busy_adapter(&model, 3);
        for dropout in [None, Some(Dropout { rate: 0.3, seed: 11 })] {
            let (_, gradient) = gradients(&model, &adapter, dropout, &batch);
            for (index, (layer, projection, gradient)) in gradient.pairs().enumerate() {
                for is_a in [true, false] {
                    let direction = if is_a { &gradient.a } else { &gradient.b_t };
                    let norm = direction.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
                    let loss_at = |step: f32| {
                        let mut moved = adapter.clone();
                        let (_, _, pair) = moved.pairs_mut().nth(index).expect("same layout");
                        let values = if is_a { &mut pair.a } else { &mut pair.b_t };
                        for (value, &slope) in values.iter_mut().zip(direction) {
                            *value += step * slope / norm as f32;
                        }
                        gradients(&model, &moved, dropout, &batch).0
                    };
                    let slope =
                        (loss_at(DIFFERENCE_STEP) - loss_at(-DIFFERENCE_STEP)) / f64::from(2.0 * DIFFERENCE_STEP);
                    let error = (slope - norm).abs() / norm;
                    assert!(
                        error <= DIFFERENCE_TOLERANCE,
                        "{family} {layer} {projection:?} A:{is_a} {dropout:?}: {slope} against {norm}"
                    );
                }
            }
        }
    }
}

#[test]
fn fresh_adapter_changes_nothing_and_learns_through_b_first() {
    for family in FAMILIES {
        let golden = Golden::open(family);
        let batch = golden.batch();
        for tier in Tier::all_available() {
            let model = golden.model(tier, 2);
            let fresh = Adapter::new_trainable(model.config(), 4, 8.0, 1);
            assert_eq!(losses(&model, &[&fresh], &batch), losses(&model, &[], &batch), "{family} {tier}");
            let (_, gradients) = gradients(&model, &fresh, None, &batch);
            for (layer, projection, gradient) in gradients.pairs() {
                assert!(gradient.a.iter().all(|&g| g == 0.0), "{family} {layer} {projection:?}");
                assert!(gradient.b_t.iter().any(|&g| g != 0.0), "{family} {layer} {projection:?}");
            }
        }
    }
}

#[test]
fn result_does_not_depend_on_threads_or_earlier_use_of_the_scratch() {
    let golden = Golden::open("qwen3");
    let batch = golden.batch();
    for tier in Tier::all_available() {
        let (one, three) = (golden.model(tier, 1), golden.model(tier, 3));
        let adapter = busy_adapter(&one, 5);
        let dropout = Some(Dropout { rate: 0.1, seed: 4 });
        let expected = gradients(&one, &adapter, dropout, &batch);
        let mut scratch = TrainScratch::new();
        let mut found = AdapterGradients::zeros_like(&adapter);
        let short = TrainBatch { tokens: &[1, 2, 3], targets: &[2, 3, 4], sequences: slice::from_ref(&(0..3)) };
        let other = busy_adapter(&three, 2);
        let mut unused = AdapterGradients::zeros_like(&other);
        three.loss_and_gradients(&mut scratch, &other, None, &short, &mut unused).expect("fits");
        let sum = three.loss_and_gradients(&mut scratch, &adapter, dropout, &batch.view(), &mut found).expect("fits");
        assert_eq!((sum.mean(), found), expected, "{tier}");
    }
}

#[test]
fn a_batch_is_the_sum_of_its_sequences() {
    let golden = Golden::open("qwen2");
    let (model, batch) = (golden.model(Tier::detect(), 2), golden.batch());
    let adapter = busy_adapter(&model, 4);
    let whole = losses(&model, &[&adapter], &batch);
    for sequence in &batch.sequences {
        let alone = Batch {
            tokens: batch.tokens[sequence.clone()].to_vec(),
            targets: batch.targets[sequence.clone()].to_vec(),
            sequences: std::iter::once(0..sequence.len()).collect(),
        };
        assert_eq!(losses(&model, &[&adapter], &alone), whole[sequence.clone()]);
    }
}

#[test]
fn two_adapters_add_up() {
    let golden = Golden::open("llama");
    let (model, batch) = (golden.model(Tier::Portable, 1), golden.batch());
    let whole = busy_adapter(&model, 4);
    let mut half = whole.clone();
    half.pairs_mut().for_each(|(_, _, pair)| pair.scale *= 0.5);
    let (found, expected) = (losses(&model, &[&half, &half], &batch), losses(&model, &[&whole], &batch));
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    }
}

#[test]
fn bad_batches_are_refused() {
    let golden = Golden::open("llama");
    let model = golden.model(Tier::Portable, 1);
    let long: Vec<u32> = vec![1; model.config().context_tokens_max + 1];
    let long_targets: Vec<i32> = vec![1; long.len()];
    let vocab = model.config().vocab_size;
    type Case<'a> = (&'a [u32], &'a [i32], Range<usize>, &'a str);
    let cases: [Case<'_>; 7] = [
        (&[1, 2], &[2], 0..2, "1 targets for 2 tokens"),
        (&[1, 2], &[2, -1], 0..1, "in no sequence"),
        (&[1, 2], &[2, -1], 1..2, "does not follow"),
        (&[1, 2], &[2, -1], 0..3, "does not follow"),
        (&[1, vocab as u32], &[2, -1], 0..2, "is not below"),
        (&[1, 2], &[vocab as i32, -1], 0..2, "is not below"),
        (&long, &long_targets, 0..long.len(), "exceeds"),
    ];
    for (tokens, targets, sequence, expected) in cases {
        let batch = TrainBatch { tokens, targets, sequences: slice::from_ref(&sequence) };
        let error =
            model.token_losses(&mut TrainScratch::new(), &[], &batch, &mut Vec::new()).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error:?} has no {expected:?}");
    }
    let options = LoadOptions { format: WeightFormat::Bf16, with_backward: false };
    let model = Model::load(Arc::new(Compute::new(Tier::Portable, 1)), &golden.folder, options).expect("loads");
    let adapter = busy_adapter(&model, 2);
    let batch = golden.batch();
    let result = model.loss_and_gradients(
        &mut TrainScratch::new(),
        &adapter,
        None,
        &batch.view(),
        &mut AdapterGradients::zeros_like(&adapter),
    );
    assert!(matches!(result, Err(ModelError::NoBackward)));
}
