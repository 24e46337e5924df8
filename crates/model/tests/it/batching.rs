//! A row's logits depend on its own sequence and adapters only, bit for bit.

use atelier_kernels::{Compute, Tier, WeightFormat};
use atelier_model::{Adapter, AdapterGroup, Batch, LoadOptions, LoraPair, Model, Row, Scratch};
use std::sync::Arc;

use crate::support::{
    Golden, Part, Sequence, THREADS, base_folder, golden_adapter, golden_folder, largest_difference, load, run,
    run_whole,
};

/// How far rounding an adapter to 255 steps moves a logit, as a share of how far the adapter moves any: each number moves
/// by up to one part in 254 of its row's largest, and sums of many move by less.
const SERVED_ERROR: f32 = 0.02;

/// As far, by the order of the same additions alone.
const SUMMATION_ERROR: f32 = 1e-4;

fn assert_same_bits(what: &str, found: &[Vec<f32>], expected: &[Vec<f32>]) {
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let different = found.iter().zip(expected).position(|(a, b)| a.to_bits() != b.to_bits());
        if let Some(at) = different {
            panic!("{what}: sequence {index} differs at element {at}: {} and {}", found[at], expected[at]);
        }
    }
}

/// Steps in which sequence `s` enters at step `s` and takes `chunk(s)` rows a step, in an order that turns.
fn staggered(sequences: &[Sequence], chunk: impl Fn(usize) -> usize) -> Vec<Vec<Part>> {
    let mut steps = Vec::new();
    loop {
        let now = steps.len();
        let part = |index: usize| {
            let start = now.checked_sub(index)? * chunk(index);
            let len = sequences[index].tokens.len();
            (start < len).then(|| (index, start..(start + chunk(index)).min(len)))
        };
        let mut step: Vec<Part> = (0..sequences.len()).filter_map(part).collect();
        if step.is_empty() && now >= sequences.len() {
            return steps;
        }
        let turn = if step.is_empty() { 0 } else { now % step.len() };
        step.rotate_left(turn);
        steps.push(step);
    }
}

/// Adapters of two ranks with a B that is not zero, neither of them the golden one.
fn made_up_adapter(model: &Model, rank: usize, seed: u64) -> Adapter {
    let mut adapter = Adapter::new_trainable(model.config(), rank, 2.0 * rank as f32, seed);
    for (_, _, pair) in adapter.pairs_mut() {
        let n = pair.a.len();
        for (index, b) in pair.b_t.iter_mut().enumerate() {
            *b = pair.a[(7 * index + 3) % n] * 0.25;
        }
    }
    adapter
}

fn check_plans(model: &Model, own: &Adapter, what: &str) {
    let other = made_up_adapter(model, 5, 11);
    let text = |seed: u32, len: u32| -> Vec<u32> {
        let vocab = model.config().vocab_size as u32;
        (0..len).map(|at| (seed + at * at * 31 + at * 7) % vocab).collect()
    };
    let sequences = [
        Sequence { tokens: text(1, 37), adapters: vec![] },
        Sequence { tokens: text(2, 21), adapters: vec![own] },
        Sequence { tokens: text(3, 16), adapters: vec![&other, own] },
        Sequence { tokens: text(4, 1), adapters: vec![] },
        Sequence { tokens: text(5, 33), adapters: vec![&other] },
    ];
    let alone: Vec<Vec<f32>> =
        sequences.iter().map(|sequence| run_whole(model, std::slice::from_ref(sequence)).concat()).collect();
    assert_same_bits(&format!("{what}: whole together"), &run_whole(model, &sequences), &alone);
    let token_by_token = run(model, &sequences, &staggered(&sequences, |_| 1));
    assert_same_bits(&format!("{what}: token by token together"), &token_by_token, &alone);
    let chunked = run(model, &sequences, &staggered(&sequences, |index| [17, 5, 1, 1, 3][index]));
    assert_same_bits(&format!("{what}: chunks and decoding mixed"), &chunked, &alone);
}

fn check_model(name: &str) {
    let folder = golden_folder(name);
    for tier in Tier::all_available() {
        for format in [WeightFormat::Bf16, WeightFormat::Int8] {
            let model = load(&folder, tier, format);
            let own = golden_adapter(&folder, &model);
            check_plans(&model, &own, &format!("{name} {tier} {format:?}"));
        }
    }
}

#[test]
fn llama() {
    check_model("llama");
}

#[test]
fn qwen2() {
    check_model("qwen2");
}

#[test]
fn qwen3() {
    check_model("qwen3");
}

#[test]
fn shipped_base() {
    for tier in Tier::all_available() {
        for format in [WeightFormat::Bf16, WeightFormat::Int8] {
            let model = load(&base_folder(), tier, format);
            let own = made_up_adapter(&model, 16, 5);
            let tokens = model.tokenizer().encode("def add(a: int, b: int) -> int:\n    return a + b\n");
            let sequences = [
                Sequence { tokens: tokens.clone(), adapters: vec![] },
                Sequence { tokens: tokens.clone(), adapters: vec![&own] },
            ];
            let alone: Vec<Vec<f32>> =
                sequences.iter().map(|sequence| run_whole(&model, std::slice::from_ref(sequence)).concat()).collect();
            assert_ne!(alone[0], alone[1]);
            let together = run(&model, &sequences, &staggered(&sequences, |index| [1, 4][index]));
            assert_same_bits(&format!("atelier-base {tier} {format:?}"), &together, &alone);
        }
    }
}

#[test]
fn a_served_adapter_is_the_rounded_one() {
    let folder = golden_folder("qwen2");
    for tier in Tier::all_available() {
        let model = load(&folder, tier, WeightFormat::Bf16);
        let own = golden_adapter(&folder, &model);
        let (served, rounded) = (own.to_served(), own.rounded());
        assert!(3 * served.bytes() < own.bytes(), "{} of {} bytes", served.bytes(), own.bytes());
        let tokens: Vec<u32> = (0..40).map(|at| (at * at * 31 + 5) % 280).collect();
        let logits =
            |adapter| run_whole(&model, &[Sequence { tokens: tokens.clone(), adapters: vec![adapter] }]).concat();
        let found = run_whole(&model, &[Sequence { tokens: tokens.clone(), adapters: vec![&served] }]).concat();
        let without = run_whole::<LoraPair>(&model, &[Sequence { tokens: tokens.clone(), adapters: vec![] }]).concat();
        let unrounded = logits(&own);
        let (effect, _) = largest_difference(&unrounded, &without);
        let (apart, _) = largest_difference(&found, &logits(&rounded));
        assert!(apart < SUMMATION_ERROR * effect, "{tier}: {apart} of an effect of {effect}");
        // It is another adapter than the one in f32, yet hardly.
        let (moved, _) = largest_difference(&found, &unrounded);
        assert!(0.0 < moved && moved < SERVED_ERROR * effect, "{tier}: {moved} of an effect of {effect}");
    }
}

#[test]
fn threads_do_not_matter() {
    let folder = golden_folder("qwen2");
    let golden = Golden::read(&folder.join("golden.safetensors"));
    for tier in Tier::all_available() {
        for format in [WeightFormat::Bf16, WeightFormat::Int8] {
            let results = [1, 2, THREADS, 7].map(|threads| {
                let compute = Arc::new(Compute::new(tier, threads));
                let model = Model::load(compute, &folder, LoadOptions { format, with_backward: false }).expect("loads");
                let own = golden_adapter(&folder, &model);
                let sequence = |tokens| Sequence { tokens, adapters: vec![&own] };
                run_whole(&model, &golden.sequences().into_iter().map(sequence).collect::<Vec<_>>())
            });
            for other in &results[1..] {
                assert_same_bits(&format!("{tier} {format:?}"), other, &results[0]);
            }
        }
    }
}

#[test]
fn logits_only_for_the_rows_asked_in_their_order() {
    let model = load(&golden_folder("llama"), Tier::detect(), WeightFormat::Bf16);
    let rows: Vec<Row> = (0..6).map(|at| Row { token: 9 + at, position: at, table: 0 }).collect();
    let table: &[u32] = &[0];
    let mut scratch = Scratch::new();
    let mut logits_of = |logits_for: &[usize]| {
        let batch: Batch<'_> = Batch { rows: &rows, tables: &[table], groups: &[], logits_for };
        let mut logits = vec![1.0; 3];
        model.forward(&mut model.new_kv_cache(1), &mut scratch, &batch, &mut logits).expect("a good batch");
        logits
    };
    let all = logits_of(&[0, 1, 2, 3, 4, 5]);
    let row = |index: usize| all[index * 280..][..280].to_vec();
    assert_eq!(logits_of(&[5, 2]), [row(5), row(2)].concat());
    assert_eq!(logits_of(&[]), Vec::<f32>::new());
}

#[test]
fn a_copied_block_is_the_same_past() {
    let model = load(&golden_folder("qwen3"), Tier::detect(), WeightFormat::Bf16);
    let mut cache = model.new_kv_cache(3);
    let config = model.config();
    let floats_per_token = 2 * config.layer_count * config.kv_head_count * config.head_dim;
    assert_eq!(cache.bytes_per_block(), 16 * 4 * floats_per_token);
    let mut scratch = Scratch::new();
    let mut step = |cache: &mut atelier_model::KvCache, tokens: &[u32], start: u32, block: u32| {
        let positions = start..start + tokens.len() as u32;
        let rows: Vec<Row> =
            positions.zip(tokens).map(|(position, &token)| Row { token, position, table: 0 }).collect();
        let table: &[u32] = &[block];
        let batch: Batch<'_> = Batch { rows: &rows, tables: &[table], groups: &[], logits_for: &[tokens.len() - 1] };
        let mut logits = Vec::new();
        model.forward(cache, &mut scratch, &batch, &mut logits).expect("a good batch");
        logits
    };
    step(&mut cache, &[10, 20, 30], 0, 0);
    cache.copy_block(0, 2);
    let there = step(&mut cache, &[40], 3, 0);
    step(&mut cache, &[99], 3, 0); // overwrites the original's last slot
    assert_eq!(step(&mut cache, &[40], 3, 2), there);
}

#[test]
fn rows_that_the_model_cannot_compute_are_refused() {
    let model = load(&golden_folder("llama"), Tier::detect(), WeightFormat::Bf16);
    let table: Vec<u32> = (0..17).collect();
    let check = |row: Row, expected: &str| {
        let rows = [Row { token: 1, position: 0, table: 0 }, row];
        let batch: Batch<'_> = Batch { rows: &rows, tables: &[&table], groups: &[], logits_for: &[0] };
        let error = model
            .forward(&mut model.new_kv_cache(17), &mut Scratch::new(), &batch, &mut Vec::new())
            .expect_err("a bad row");
        assert_eq!(error.to_string(), expected);
    };
    check(Row { token: 280, position: 1, table: 0 }, "row 1: token 280 is not in the vocabulary of 280");
    check(Row { token: 3, position: 256, table: 0 }, "row 1: position 256 is beyond the context of 256 tokens");
}

#[test]
#[should_panic(expected = "adapter groups overlap")]
fn overlapping_groups_are_a_mistake_of_the_caller() {
    let model = load(&golden_folder("llama"), Tier::detect(), WeightFormat::Bf16);
    let own = made_up_adapter(&model, 2, 1);
    let rows = [0, 1].map(|position| Row { token: 1, position, table: 0 });
    let table: &[u32] = &[0];
    let adapters = [&own];
    let groups = [0..2, 1..2].map(|rows| AdapterGroup { rows, adapters: &adapters });
    let batch = Batch { rows: &rows, tables: &[table], groups: &groups, logits_for: &[] };
    let _ = model.forward(&mut model.new_kv_cache(1), &mut Scratch::new(), &batch, &mut Vec::new());
}
