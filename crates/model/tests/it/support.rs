//! Golden files, and a small stand-in for the engine that runs any plan of steps.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use atelier_kernels::{Compute, Tier, WeightFormat};
use atelier_model::{
    Adapter, AdapterFiles, AdapterGroup, AdapterPair, Batch, KV_BLOCK_TOKENS, LoadOptions, LoraPair, Model, ModelError,
    Row, Scratch,
};
use safetensors::{Dtype, SafeTensors};

/// Threads of the tests' compute: more than this machine needs, so that rows really are split.
pub const THREADS: usize = 3;

pub fn golden_folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

pub fn base_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/atelier-base")
}

pub fn try_load(folder: &Path, tier: Tier, format: WeightFormat) -> Result<Model, ModelError> {
    let compute = Arc::new(Compute::new(tier, THREADS));
    Model::load(compute, folder, LoadOptions { format, with_backward: false })
}

pub fn load(folder: &Path, tier: Tier, format: WeightFormat) -> Model {
    try_load(folder, tier, format).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
}

pub fn adapter_files(folder: &Path) -> AdapterFiles {
    let read = |name: &str| std::fs::read(folder.join("adapter").join(name)).expect("golden adapter");
    AdapterFiles { config: read("adapter_config.json"), weights: read("adapter_model.safetensors") }
}

pub fn golden_adapter(folder: &Path, model: &Model) -> Adapter {
    Adapter::from_peft(&adapter_files(folder), model.config(), model.digest()).expect("golden adapter")
}

/// The tensors of one golden file.
pub struct Golden {
    floats: HashMap<String, Vec<f32>>,
    whole: HashMap<String, Vec<i32>>,
}

impl Golden {
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).expect("golden file");
        let mut golden = Self { floats: HashMap::new(), whole: HashMap::new() };
        for (name, view) in SafeTensors::deserialize(&bytes).expect("golden file").tensors() {
            let words = view.data().chunks_exact(4).map(|word| word.try_into().expect("four bytes"));
            match view.dtype() {
                Dtype::F32 => drop(golden.floats.insert(name, words.map(f32::from_le_bytes).collect())),
                Dtype::I32 => drop(golden.whole.insert(name, words.map(i32::from_le_bytes).collect())),
                other => panic!("golden tensor {name} of type {other}"),
            }
        }
        golden
    }

    pub fn floats(&self, name: &str) -> &[f32] {
        &self.floats[name]
    }

    pub fn whole(&self, name: &str) -> &[i32] {
        &self.whole[name]
    }

    /// The packed `tokens`, cut into sequences.
    pub fn sequences(&self) -> Vec<Vec<u32>> {
        let tokens: Vec<u32> = self.whole("tokens").iter().map(|&token| token as u32).collect();
        let mut rest = &tokens[..];
        let mut sequences = Vec::new();
        for &length in self.whole("sequence_tokens") {
            let (sequence, after) = rest.split_at(length as usize);
            sequences.push(sequence.to_vec());
            rest = after;
        }
        assert!(rest.is_empty());
        sequences
    }
}

/// One sequence and what it runs with.
#[derive(Clone)]
pub struct Sequence<'a, P = LoraPair> {
    pub tokens: Vec<u32>,
    pub adapters: Vec<&'a Adapter<P>>,
}

/// Rows of one sequence that go into one step.
pub type Part = (usize, Range<usize>);

/// Runs the steps one after the other and returns each sequence's logits, (tokens, vocab). Blocks of the sequences are
/// dealt in turns from the end of the cache, so that no sequence has neighbouring blocks.
pub fn run<P: AdapterPair>(model: &Model, sequences: &[Sequence<'_, P>], steps: &[Vec<Part>]) -> Vec<Vec<f32>> {
    let vocab = model.config().vocab_size;
    let blocks_each = |sequence: &Sequence<'_, P>| sequence.tokens.len().div_ceil(KV_BLOCK_TOKENS);
    let blocks = sequences.iter().map(blocks_each).max().unwrap_or(0);
    let count = sequences.len();
    let table = |index: usize| (0..blocks).map(|block| (blocks * count - 1 - (block * count + index)) as u32).collect();
    let tables: Vec<Vec<u32>> = (0..count).map(table).collect();
    let tables: Vec<&[u32]> = tables.iter().map(Vec::as_slice).collect();
    let mut cache = model.new_kv_cache(blocks * count);
    let mut scratch = Scratch::new();
    let mut results: Vec<Vec<f32>> = sequences.iter().map(|s| vec![f32::NAN; s.tokens.len() * vocab]).collect();
    let mut logits = Vec::new();
    for step in steps {
        let mut rows = Vec::new();
        let mut groups = Vec::new();
        for (index, positions) in step {
            let start = rows.len();
            let sequence = &sequences[*index];
            rows.extend(positions.clone().map(|position| Row {
                token: sequence.tokens[position],
                position: position as u32,
                table: *index as u32,
            }));
            if !sequence.adapters.is_empty() {
                groups.push(AdapterGroup { rows: start..rows.len(), adapters: &sequence.adapters });
            }
        }
        let logits_for: Vec<usize> = (0..rows.len()).collect();
        let batch = Batch { rows: &rows, tables: &tables, groups: &groups, logits_for: &logits_for };
        model.forward(&mut cache, &mut scratch, &batch, &mut logits).expect("a good batch");
        let mut rest = &logits[..];
        for (index, positions) in step {
            let (part, after) = rest.split_at(positions.len() * vocab);
            results[*index][positions.start * vocab..positions.end * vocab].copy_from_slice(part);
            rest = after;
        }
    }
    results
}

/// All sequences whole in one step.
pub fn run_whole<P: AdapterPair>(model: &Model, sequences: &[Sequence<'_, P>]) -> Vec<Vec<f32>> {
    let step = sequences.iter().enumerate().map(|(index, sequence)| (index, 0..sequence.tokens.len())).collect();
    run(model, sequences, &[step])
}

/// Largest absolute difference, with its place.
pub fn largest_difference(found: &[f32], expected: &[f32]) -> (f32, usize) {
    assert_eq!(found.len(), expected.len());
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    // NaN must count as infinitely far.
    let differences = differences.map(|d| if d.is_nan() { f32::INFINITY } else { d });
    differences.enumerate().fold((0.0, 0), |most, (at, d)| if d > most.0 { (d, at) } else { most })
}

pub fn rms(values: &[f32]) -> f32 {
    (values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / values.len() as f64).sqrt() as f32
}
