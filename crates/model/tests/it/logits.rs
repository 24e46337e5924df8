//! Logits of all families against PyTorch, in every tier and weight format.
//!
//! The reference computes in f32 on the same bf16 weights. A tolerance is a share of the root mean square of the
//! golden logits: the largest difference of any logit stays below it, the root mean square of the differences below a
//! quarter of it.

use atelier_kernels::{Tier, WeightFormat};

use crate::support::{
    Golden, Sequence, base_folder, golden_adapter, golden_folder, largest_difference, load, rms, run_whole,
};
use atelier_model::LoraPair;

/// f32 inputs, bf16 weights: only the order of additions differs from the reference.
const TOLERANCE_F32: f32 = 3e-5;
/// Inputs of every product are rounded to bf16: 2⁻⁹ each, over a dozen products in a row.
const TOLERANCE_BF16: f32 = 0.06;
/// Weights and inputs of every product are rounded to 8 bits.
const TOLERANCE_INT8: f32 = 0.3;

fn tolerance(tier: Tier, format: WeightFormat) -> f32 {
    match (tier, format) {
        (_, WeightFormat::Int8) => TOLERANCE_INT8,
        (Tier::Avx512Bf16, WeightFormat::Bf16) => TOLERANCE_BF16,
        (_, WeightFormat::Bf16) => TOLERANCE_F32,
    }
}

fn every_tier_and_format() -> impl Iterator<Item = (Tier, WeightFormat)> {
    let formats = [WeightFormat::Bf16, WeightFormat::Int8];
    Tier::all_available().into_iter().flat_map(move |tier| formats.map(|format| (tier, format)))
}

fn check_close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    let (largest, at) = largest_difference(found, expected);
    let differences: Vec<f32> = found.iter().zip(expected).map(|(a, b)| a - b).collect();
    let (largest, usual) = (largest / rms(expected), rms(&differences) / rms(expected));
    eprintln!("{what}: largest {largest:.1e}, usual {usual:.1e} of the rms, tolerance {tolerance:.0e}");
    assert!(largest <= tolerance, "{what}: {} at {at}, expected {}: {largest} of the rms", found[at], expected[at]);
    assert!(usual <= tolerance / 4.0, "{what}: the differences have {usual} of the rms");
}

fn check_family(name: &str) {
    let folder = golden_folder(name);
    let golden = Golden::read(&folder.join("golden.safetensors"));
    for (tier, format) in every_tier_and_format() {
        let model = load(&folder, tier, format);
        let adapter = golden_adapter(&folder, &model);
        for (arm, adapters) in [("base", vec![]), ("adapter", vec![&adapter])] {
            let sequence = |tokens| Sequence { tokens, adapters: adapters.clone() };
            let sequences: Vec<_> = golden.sequences().into_iter().map(sequence).collect();
            let logits = run_whole(&model, &sequences).concat();
            let expected = golden.floats(&format!("{arm}.logits"));
            check_close(&format!("{name} {arm} {tier} {format:?}"), &logits, expected, tolerance(tier, format));
        }
    }
}

#[test]
fn llama() {
    check_family("llama");
}

#[test]
fn qwen2() {
    check_family("qwen2");
}

#[test]
fn qwen3() {
    check_family("qwen3");
}

#[test]
fn adapter_changes_the_logits() {
    for name in ["llama", "qwen2", "qwen3"] {
        let golden = Golden::read(&golden_folder(name).join("golden.safetensors"));
        let (base, own) = (golden.floats("base.logits"), golden.floats("adapter.logits"));
        // Or the tests above would not see an adapter that is not applied.
        assert!(largest_difference(base, own).0 > 4.0 * TOLERANCE_INT8 * rms(base), "{name}");
    }
}

#[test]
fn shipped_base() {
    let golden = Golden::read(&golden_folder("atelier-base.safetensors"));
    let tokens: Vec<u32> = golden.whole("tokens").iter().map(|&token| token as u32).collect();
    let count = tokens.len();
    for (tier, format) in every_tier_and_format() {
        let model = load(&base_folder(), tier, format);
        let vocab = model.config().vocab_size;
        let logits = run_whole::<LoraPair>(&model, &[Sequence { tokens: tokens.clone(), adapters: vec![] }]).concat();
        let tolerance = tolerance(tier, format);
        let what = |part: &str| format!("atelier-base {part} {tier} {format:?}");
        check_close(&what("last"), &logits[(count - 1) * vocab..], golden.floats("last.logits"), tolerance);

        let ids = golden.whole("other.ids");
        let others = golden.whole("other.positions").iter().flat_map(|&position| {
            let row = &logits[position as usize * vocab..][..vocab];
            ids.iter().map(|&id| row[id as usize])
        });
        check_close(&what("others"), &others.collect::<Vec<_>>(), golden.floats("other.logits"), tolerance);

        let sums: Vec<f32> = logits.chunks(vocab).map(|row| atelier_kernels::log_sum_exp(tier, row)).collect();
        check_close(&what("log-sum-exp"), &sums, golden.floats("log_sum_exp"), tolerance);
        if tolerance <= TOLERANCE_F32 {
            let best: Vec<i32> = logits.chunks(vocab).map(|row| atelier_kernels::argmax(row) as i32).collect();
            assert_eq!(best, golden.whole("argmax"), "{tier}");
        }
    }
}
