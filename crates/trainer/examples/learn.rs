//! Trains on a folder and prints what it gained: `cargo run -p atelier-trainer --example learn -- BASE PATH`.
#![expect(clippy::print_stdout, reason = "a program for people at a terminal")]

use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use atelier_kernels::{Compute, Tier, WeightFormat};
use atelier_model::{LoadOptions, Model};
use atelier_trainer::{
    EvalOptions, Language, Observer, SourceFile, SplitShares, TrainEvent, TrainOptions, evaluate, held_out_windows,
    split_files, train,
};

/// Bytes of one file that is read; larger ones are data or generated.
const FILE_BYTES_MAX: u64 = 200_000;

/// Bytes of all files together: about 500 thousand tokens, a few minutes.
const BYTES_MAX: usize = 2_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [base, path, overrides @ ..] = &arguments[..] else {
        return Err(
            "usage: learn BASE PATH [rank=N] [lr=X] [epochs=N] [steps=N] [batch=N] [window=N] [items=N] [tier=T]"
                .into(),
        );
    };
    let value = |name: &str| overrides.iter().find_map(|text| text.strip_prefix(name)?.strip_prefix('='));
    let tier = value("tier").map_or_else(|| Ok(Tier::detect()), str::parse)?;
    let threads = std::thread::available_parallelism()?.get();
    let compute = Arc::new(Compute::new(tier, threads));
    let options = LoadOptions { format: WeightFormat::Bf16, with_backward: true };
    let model = Model::load(compute, Path::new(base), options)?;

    let mut files = Vec::new();
    collect(Path::new(path), &mut files)?;
    let split = split_files(files, SplitShares::default(), 0);
    let text = |files: &[SourceFile]| files.iter().map(|file| model.tokenizer().encode_plain(&file.text).len()).sum();
    let tokens: usize = text(&split.train);
    let mut options = TrainOptions::recipe(tokens, model.config().hidden_size);
    options.rank = value("rank").map_or(Ok(options.rank), str::parse)?;
    options.learning_rate = value("lr").map_or(Ok(options.learning_rate), str::parse)?;
    options.epochs = value("epochs").map_or(Ok(options.epochs), str::parse)?;
    options.sequences_per_step = value("batch").map_or(Ok(options.sequences_per_step), str::parse)?;
    options.window_tokens = value("window").map_or(Ok(options.window_tokens), str::parse)?;
    options.steps_max = value("steps").map(str::parse).transpose()?;
    println!("{tier}, {threads} threads; {} training files, {tokens} tokens; {options:?}", split.train.len());

    let validation = held_out_windows(model.tokenizer(), &split.validation, options.window_tokens);
    let start = Instant::now();
    let trained = train(&model, &split.train, &validation, &options, None, &mut Printer)?;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{} tokens in {seconds:.1} s with validation: {:.0} tokens/s",
        trained.tokens,
        trained.tokens as f64 / seconds
    );
    let start = Instant::now();
    let mut judging = EvalOptions::default();
    judging.items_max = value("items").map_or(Ok(judging.items_max), str::parse)?;
    let card = evaluate(&model, Some(&trained.adapter), &split.test, &judging)?;
    println!("{card:#?}\njudged in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

struct Printer;

impl Observer for Printer {
    fn event(&mut self, event: &TrainEvent) -> ControlFlow<()> {
        match event {
            TrainEvent::Step { step, .. } if step % 10 != 0 => {}
            _ => println!("{event:?}"),
        }
        ControlFlow::Continue(())
    }

    fn checkpoint(&mut self, _state: &[u8]) {}
}

/// Source files under `path`, in order of their names, until [`BYTES_MAX`] is full.
fn collect(path: &Path, files: &mut Vec<SourceFile>) -> Result<(), Box<dyn Error>> {
    if path.is_dir() {
        let mut entries: Vec<_> = std::fs::read_dir(path)?.collect::<Result<_, _>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        return entries.iter().try_for_each(|entry| collect(&entry.path(), files));
    }
    let name = path.to_string_lossy().into_owned();
    let bytes: usize = files.iter().map(|file| file.text.len()).sum();
    let is_wanted = Language::from_path(&name) != Language::Other && bytes < BYTES_MAX;
    if is_wanted
        && path.metadata()?.len() <= FILE_BYTES_MAX
        && let Ok(text) = std::fs::read_to_string(path)
    {
        files.push(SourceFile { path: name, text });
    }
    Ok(())
}
