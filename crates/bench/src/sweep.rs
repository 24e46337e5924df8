//! `atelier-bench sweep`: learning rates and ranks on a few packages that nothing else is measured on.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use atelier_kernels::WeightFormat;
use atelier_trainer::TrainOptions;
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::arms::HeldOut;
use crate::document;
use crate::host::{HostArgs, Machine};
use crate::learn::{LearnSettings, Prepared, TrainingRecord, learn};
use crate::ledger::Ledger;
use crate::packages::{self, Package};
use crate::speed::load;

/// Name of the marks in the document.
const MARK: &str = "sweep";

/// Arguments of `sweep`.
#[derive(Args)]
pub struct SweepArgs {
    #[command(flatten)]
    host: HostArgs,
    /// Folder with a folder for each package
    #[arg(long)]
    packages: PathBuf,
    /// JSON file of the results; a run that was interrupted goes on with it
    #[arg(long)]
    out: PathBuf,
    /// Markdown document whose table is replaced
    #[arg(long)]
    document: Option<PathBuf>,
    /// Multiples of the recipe's learning rate
    #[arg(long, value_delimiter = ',', default_value = "0.3,1,3")]
    factors: Vec<f32>,
    /// Ranks
    #[arg(long, value_delimiter = ',', default_value = "8,16")]
    ranks: Vec<usize>,
    #[command(flatten)]
    settings: LearnSettings,
}

/// Everything that one record depends on beside its own fields; the grid may grow from run to run.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Settings {
    base: String,
    base_digest: String,
    learn: LearnSettings,
    packages: Vec<Package>,
}

/// One package trained with one learning rate and rank.
#[derive(Debug, Serialize, Deserialize)]
struct Trial {
    package: String,
    rank: usize,
    factor: f32,
    training: TrainingRecord,
    base_loss: f64,
    loss: f64,
}

impl Trial {
    fn is(&self, package: &str, rank: usize, factor: f32) -> bool {
        self.package == package && self.rank == rank && self.factor == factor
    }

    fn change(&self) -> f64 {
        self.loss / self.base_loss - 1.0
    }
}

/// Trains the whole grid, writes the table.
pub fn run(args: &SweepArgs) -> Result<()> {
    let compute = args.host.compute()?;
    let model = load(&compute, &args.host.base, WeightFormat::Bf16, true)?;
    let settings = Settings {
        base: args.host.base_name(),
        base_digest: model.digest().to_string(),
        learn: args.settings.clone(),
        packages: packages::list(&args.packages)?,
    };
    let mut ledger: Ledger<Settings, Trial> = Ledger::open(&args.out, settings, Machine::of(&compute))?;
    let packages = ledger.settings.packages.clone();
    for package in &packages {
        let files = packages::read(&args.packages, package)?;
        let prepared = Prepared::new(model.tokenizer(), files, &args.settings)?;
        let held_out = HeldOut::new(&model, &prepared.test, 0, args.settings.seed)?;
        let grid = args.ranks.iter().flat_map(|&rank| args.factors.iter().map(move |&factor| (rank, factor)));
        for (rank, factor) in grid {
            if ledger.records.iter().any(|trial| trial.is(&package.name, rank, factor)) {
                continue;
            }
            let recipe = args.settings.options(prepared.train_tokens, model.config().hidden_size);
            let options = TrainOptions { rank, learning_rate: factor * recipe.learning_rate, ..recipe };
            let label = format!("{} r{rank} lr x{factor}", package.name);
            let (adapter, training) = learn(&model, &prepared, options, &args.settings, &label)?;
            let (base_loss, loss) = held_out.losses(&model, &adapter)?;
            let trial = Trial { package: package.name.clone(), rank, factor, training, base_loss, loss };
            eprintln!("{label}: {base_loss:.3} -> {loss:.3} ({:+.1} %)", 100.0 * trial.change());
            ledger.records.push(trial);
            ledger.save(&args.out)?;
        }
    }
    let text = report(&ledger);
    if let Some(path) = &args.document {
        document::replace(path, MARK, &text)?;
    }
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

/// A row for each rank and learning rate, a column for each package.
fn report(ledger: &Ledger<Settings, Trial>) -> String {
    let packages = &ledger.settings.packages;
    let mut points: Vec<(usize, f32)> = ledger.records.iter().map(|trial| (trial.rank, trial.factor)).collect();
    points.sort_by(|left, right| left.0.cmp(&right.0).then(left.1.total_cmp(&right.1)));
    points.dedup();
    let rows: Vec<Vec<String>> = points.iter().map(|&(rank, factor)| row(ledger, rank, factor)).collect();
    let titles: Vec<String> = packages.iter().map(|package| format!("{} {}", package.name, package.version)).collect();
    let headings: Vec<&str> = ["rank", "learning rate", "times the recipe's"]
        .into_iter()
        .chain(titles.iter().map(String::as_str))
        .chain(["mean"])
        .collect();
    let seconds: f64 = ledger.records.iter().map(|trial| trial.training.seconds).sum();
    format!(
        "{}\nHeld-out loss of the test files, base → own, and the change. Measured {} at commit {} on {} cores of {} \
         ({}), base {}; at most {} training tokens an epoch and {} epochs; {:.0} s of training in all.\n",
        document::table(&headings, &rows),
        ledger.date,
        ledger.commit,
        ledger.machine.cores,
        ledger.machine.cpu,
        ledger.machine.tier,
        ledger.settings.base,
        ledger.settings.learn.train_tokens_max,
        ledger.settings.learn.epochs.map_or_else(|| "the recipe's".to_owned(), |epochs| epochs.to_string()),
        seconds,
    )
}

fn row(ledger: &Ledger<Settings, Trial>, rank: usize, factor: f32) -> Vec<String> {
    let trial = |package: &Package| ledger.records.iter().find(|trial| trial.is(&package.name, rank, factor));
    let trials: Vec<Option<&Trial>> = ledger.settings.packages.iter().map(trial).collect();
    let cell = |trial: &Option<&Trial>| {
        trial.map_or_else(
            || "–".to_owned(),
            |trial| format!("{:.3} → {:.3} ({:+.1} %)", trial.base_loss, trial.loss, 100.0 * trial.change()),
        )
    };
    let done: Vec<f64> = trials.iter().flatten().map(|trial| trial.change()).collect();
    let mean = done.iter().sum::<f64>() / done.len().max(1) as f64;
    let rate = trials.iter().flatten().next().map_or(0.0, |trial| trial.training.options.learning_rate);
    let first = [rank.to_string(), format!("{rate:.1e}"), format!("{factor}")];
    let last = format!("{:+.1} %", 100.0 * mean);
    first.into_iter().chain(trials.iter().map(cell)).chain([last]).collect()
}
