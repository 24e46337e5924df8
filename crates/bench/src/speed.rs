//! `atelier-bench speed`: every figure of serving and training speed.

mod adapters;
pub mod client;
pub mod gateway;
mod streams;
mod training;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use atelier_kernels::{Compute, WeightFormat};
use atelier_model::{LoadOptions, Model};
use clap::Args;

use crate::figures::{Figures, KINDS, RecordArgs};
use crate::host::{HostArgs, Machine};
use crate::random_base::{Shape, WORK_A, WORK_B};

/// Arguments of `speed`.
#[derive(Args)]
pub struct SpeedArgs {
    #[command(flatten)]
    host: HostArgs,
    /// Fewer tokens and one repeat: to see that it works
    #[arg(long)]
    quick: bool,
    /// Only figures whose "model weights name" contains this; may be repeated
    #[arg(long)]
    only: Vec<String>,
    #[command(flatten)]
    record: RecordArgs,
    /// Folder for the random-weight models, about 1 GB; kept for the next run
    #[arg(long, default_value = "target/bench-models")]
    scratch: PathBuf,
    /// The server for the gateway's figures; `atelier` beside this binary unless told
    #[arg(long)]
    server: Option<PathBuf>,
}

/// How much is done for one figure.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Tokens of each client's prompt.
    pub prompt_tokens: usize,
    /// Tokens that each client gets.
    pub new_tokens: usize,
    /// Tokens of the one prompt of the prefill figure.
    pub prefill_tokens: usize,
    /// Sequences of a training step.
    pub train_sequences: usize,
    /// Targets of each.
    pub train_tokens: usize,
    /// Values of which the median is taken.
    pub repeats: usize,
    /// Prompts of which the median time to the first token is taken.
    pub first_tokens: usize,
}

/// The 0.5 B shape: sizes of work A, few repeats, because one takes seconds.
const LARGE: Workload = Workload {
    prompt_tokens: 100,
    new_tokens: 32,
    prefill_tokens: 512,
    train_sequences: 4,
    train_tokens: 512,
    repeats: 2,
    first_tokens: 3,
};

/// Small models: sizes of work B.
const SMALL: Workload = Workload {
    prompt_tokens: 100,
    new_tokens: 64,
    prefill_tokens: 1_024,
    train_sequences: 8,
    train_tokens: 512,
    repeats: 5,
    first_tokens: 15,
};

impl Workload {
    fn quick(self) -> Workload {
        Workload {
            new_tokens: self.new_tokens / 4,
            prefill_tokens: self.prefill_tokens / 4,
            train_tokens: self.train_tokens / 4,
            repeats: 1,
            first_tokens: 1,
            ..self
        }
    }
}

/// What to measure: decides by the words of `--only`.
pub struct Selection<'a>(&'a [String]);

impl Selection<'_> {
    /// Whether one figure is asked for.
    pub fn has(&self, model: &str, weights: &str, name: &str) -> bool {
        let full = format!("{model} {weights} {name}");
        self.0.is_empty() || self.0.iter().any(|word| full.contains(word.as_str()))
    }

    fn has_any(&self, model: &str, weights: &str, wanted: impl Fn(&str) -> bool) -> bool {
        KINDS.iter().any(|kind| wanted(kind.name) && self.has(model, weights, kind.name))
    }
}

/// Measures, prints a table, appends to the record.
pub fn run(args: &SpeedArgs) -> Result<()> {
    let compute = args.host.compute()?;
    let mut figures = Figures::new(Machine::of(&compute));
    let selection = Selection(&args.only);
    let models = [(None, SMALL), (Some(WORK_B), SMALL), (Some(WORK_A), LARGE)];
    for (shape, workload) in models {
        let workload = if args.quick { workload.quick() } else { workload };
        measure_model(args, &compute, shape.as_ref(), workload, &selection, &mut figures)?;
        record(args, &mut figures)?;
    }
    if selection.has_any(gateway::MODEL, gateway::WEIGHTS, |name| name.starts_with("gateway.")) {
        let measured = gateway::measure(args, &compute, &mut figures);
        record(args, &mut figures)?;
        measured?;
    }
    writeln!(std::io::stdout(), "{}", figures.table().trim_end())?;
    Ok(())
}

/// After each model, so that a failure later loses nothing.
fn record(args: &SpeedArgs, figures: &mut Figures) -> Result<()> {
    figures.record(&args.record)
}

/// All figures of one model, in both formats of weights.
fn measure_model(
    args: &SpeedArgs,
    compute: &Arc<Compute>,
    shape: Option<&Shape>,
    workload: Workload,
    selection: &Selection<'_>,
    figures: &mut Figures,
) -> Result<()> {
    let name = shape.map_or_else(|| args.host.base_name(), |shape| shape.name.to_owned());
    for (format, weights) in [(WeightFormat::Bf16, "bf16"), (WeightFormat::Int8, "int8")] {
        // Training is measured once: its forward pass is the only part that the format changes.
        let trains = format == WeightFormat::Bf16 && selection.has(&name, weights, "training");
        let elsewhere = |kind: &str| kind.starts_with("gateway.") || kind.starts_with("walls.") || kind == "training";
        let serves = selection.has_any(&name, weights, |kind| !elsewhere(kind));
        if !trains && !serves {
            continue;
        }
        let folder = match shape {
            Some(shape) => {
                eprintln!("{name}: {:.1} million parameters, random weights", shape.parameters() as f64 / 1e6);
                shape.write(&args.scratch, &args.host.base)?
            }
            None => args.host.base.clone(),
        };
        let model = load(compute, &folder, format, trains)?;
        if serves {
            let case = streams::Case { name: &name, weights, workload, selection };
            streams::measure(&model, &case, figures)?;
        }
        if trains {
            let speed = training::tokens_per_second(&model, workload)?;
            let what = format!("{} x {} tokens", workload.train_sequences, workload.train_tokens);
            figures.add(&name, weights, "training", speed, &what);
        }
    }
    Ok(())
}

/// Loads a model from its folder.
pub fn load(compute: &Arc<Compute>, folder: &Path, format: WeightFormat, with_backward: bool) -> Result<Arc<Model>> {
    let options = LoadOptions { format, with_backward };
    let model = Model::load(Arc::clone(compute), folder, options)
        .with_context(|| format!("cannot load the model in {}", folder.display()))?;
    Ok(Arc::new(model))
}

/// The middle value.
///
/// # Panics
/// If there is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    percentile(&mut values, 0.5)
}

/// The value below which `share` of the values lie; sorts them.
///
/// # Panics
/// If there is none.
pub fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share).round() as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let values: Vec<f64> = (1..=101).rev().map(f64::from).collect();
        assert_eq!(median(values.clone()), 51.0);
        assert_eq!(percentile(&mut values.clone(), 0.99), 100.0);
        assert_eq!(median(vec![3.0]), 3.0);
    }

    #[test]
    fn only_selects_by_any_word() {
        let all = Selection(&[]);
        assert!(all.has("m", "bf16", "training"));
        let words = ["training".to_owned(), "random-19m int8".to_owned()];
        let some = Selection(&words);
        assert!(some.has("m", "bf16", "training") && some.has("random-19m", "int8", "prefill"));
        assert!(!some.has("random-19m", "bf16", "prefill"));
    }
}
