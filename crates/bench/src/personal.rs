//! `atelier-bench personal`: one tenant for each package, judged on its held-out files under base, own and another's
//! adapter.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use atelier_kernels::WeightFormat;
use atelier_model::Model;
use atelier_trainer::Interval;
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::arms::{Evaluation, HeldOut, mean_ci95};
use crate::document;
use crate::host::{HostArgs, Machine};
use crate::learn::{LearnSettings, Prepared, TrainingRecord, label, learn, save, saved};
use crate::ledger::Ledger;
use crate::packages::{self, Package};
use crate::speed::load;

/// Name of the marks in the document.
const MARK: &str = "personal";

/// Arguments of `personal`.
#[derive(Args)]
pub struct PersonalArgs {
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
    /// Places to complete for each package
    #[arg(long, default_value_t = 200)]
    items: usize,
    #[command(flatten)]
    settings: LearnSettings,
}

/// Everything that the figures depend on.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Settings {
    base: String,
    base_digest: String,
    items: usize,
    learn: LearnSettings,
    packages: Vec<Package>,
}

/// One tenant's results.
#[derive(Debug, Serialize, Deserialize)]
struct Tenant {
    package: Package,
    training: TrainingRecord,
    /// Once the other's adapter is there too.
    evaluation: Option<Evaluation>,
}

/// Trains all, judges all, writes the table.
pub fn run(args: &PersonalArgs) -> Result<()> {
    let compute = args.host.compute()?;
    let model = load(&compute, &args.host.base, WeightFormat::Bf16, true)?;
    let packages = packages::list(&args.packages)?;
    ensure!(packages.len() > 1, "another's adapter needs a second package");
    let settings = Settings {
        base: args.host.base_name(),
        base_digest: model.digest().to_string(),
        items: args.items,
        learn: args.settings.clone(),
        packages,
    };
    let ledger = Ledger::open(&args.out, settings, Machine::of(&compute))?;
    let mut bench = Bench { args, model, ledger };
    bench.train_all()?;
    bench.judge_all()?;
    let text = report(&bench.ledger);
    if let Some(path) = &args.document {
        document::replace(path, MARK, &text)?;
    }
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

struct Bench<'a> {
    args: &'a PersonalArgs,
    model: Arc<Model>,
    ledger: Ledger<Settings, Tenant>,
}

impl Bench<'_> {
    fn train_all(&mut self) -> Result<()> {
        let packages = self.ledger.settings.packages.clone();
        for (index, package) in packages.iter().enumerate() {
            if self.ledger.records.iter().any(|tenant| tenant.package == *package) {
                continue;
            }
            let prepared = self.prepare(package)?;
            let settings = &self.ledger.settings.learn;
            let options = settings.options(prepared.train_tokens, self.model.config().hidden_size);
            let label = label(package, index, packages.len());
            let (adapter, training) = learn(&self.model, &prepared, options, settings, &label)?;
            save(&self.model, &adapter, &self.adapter_folder(package), &self.ledger.settings.base)?;
            eprintln!(
                "{label}: {} tokens, {} steps, validation {:.3} -> {:.3}, {:.0} s, {:.0} tok/s",
                training.train_tokens,
                training.steps,
                training.base_validation_loss,
                training.validation_loss,
                training.seconds,
                training.tokens_per_second()
            );
            self.ledger.records.push(Tenant { package: package.clone(), training, evaluation: None });
            self.ledger.save(&self.args.out)?;
        }
        Ok(())
    }

    /// Each with its own and the next one's adapter.
    fn judge_all(&mut self) -> Result<()> {
        let packages = self.ledger.settings.packages.clone();
        for (index, package) in packages.iter().enumerate() {
            let other = &packages[(index + 1) % packages.len()];
            let at = self.position(package)?;
            if self.ledger.records[at].evaluation.is_some() {
                continue;
            }
            let prepared = self.prepare(package)?;
            let seed = self.ledger.settings.learn.seed;
            let held_out = HeldOut::new(&self.model, &prepared.test, self.args.items, seed)?;
            let own = saved(&self.model, &self.adapter_folder(package))?;
            let others = saved(&self.model, &self.adapter_folder(other))?;
            let evaluation = held_out.judge(&self.model, &own, (&other.name, &others))?;
            eprintln!(
                "{}: loss base {:.3} own {:.3} ({}) other {:.3}; exact {:.1} / {:.1} / {:.1} %",
                label(package, index, packages.len()),
                evaluation.loss.base,
                evaluation.loss.own,
                percent(-evaluation.own_reduction()),
                evaluation.loss.other,
                100.0 * evaluation.exact_match.base,
                100.0 * evaluation.exact_match.own,
                100.0 * evaluation.exact_match.other,
            );
            self.ledger.records[at].evaluation = Some(evaluation);
            self.ledger.save(&self.args.out)?;
        }
        Ok(())
    }

    fn prepare(&self, package: &Package) -> Result<Prepared> {
        let files = packages::read(&self.args.packages, package)?;
        Prepared::new(self.model.tokenizer(), files, &self.ledger.settings.learn)
            .with_context(|| format!("package {}", package.name))
    }

    fn position(&self, package: &Package) -> Result<usize> {
        let found = self.ledger.records.iter().position(|tenant| tenant.package == *package);
        found.with_context(|| format!("{} was not trained", package.name))
    }

    fn adapter_folder(&self, package: &Package) -> PathBuf {
        adapters_folder(&self.args.out).join(&package.name)
    }
}

/// Beside the results: `personal.json` has `personal.adapters`.
fn adapters_folder(out: &Path) -> PathBuf {
    out.with_extension("adapters")
}

/// Heads of the table of losses.
const LOSS_HEADS: [&str; 9] = [
    "package",
    "train tokens",
    "test tokens",
    "base",
    "own",
    "another's",
    "own − base",
    "base − own, 95 %",
    "another's − own, 95 %",
];
/// Heads of the table of everything else.
const REST_HEADS: [&str; 11] = [
    "package",
    "bits/byte base",
    "own",
    "another's",
    "places",
    "exact first line base",
    "own",
    "another's",
    "own − base, points, 95 %",
    "seconds",
    "tok/s",
];

/// The table and the sentences under it.
fn report(ledger: &Ledger<Settings, Tenant>) -> String {
    let judged: Vec<(&Tenant, &Evaluation)> =
        ledger.records.iter().filter_map(|tenant| Some((tenant, tenant.evaluation.as_ref()?))).collect();
    let rows = |row: fn(&Tenant, &Evaluation) -> Vec<String>| -> Vec<_> {
        judged.iter().map(|(tenant, card)| row(tenant, card)).collect()
    };
    let losses = document::table(&LOSS_HEADS, &rows(loss_row));
    let rest = document::table(&REST_HEADS, &rows(rest_row));
    let seed = ledger.settings.learn.seed;
    let mean =
        |of: &dyn Fn(&Evaluation) -> f64| mean_ci95(&judged.iter().map(|(_, card)| of(card)).collect::<Vec<_>>(), seed);
    let count = |holds: &dyn Fn(&Evaluation) -> bool| judged.iter().filter(|(_, card)| holds(card)).count();
    let authors = judged.iter().map(|(tenant, _)| &tenant.package.author).collect::<std::collections::BTreeSet<_>>();
    let seconds: f64 = judged.iter().map(|(tenant, _)| tenant.training.seconds).sum();
    let tokens: usize = judged.iter().map(|(tenant, _)| tenant.training.tokens).sum();
    format!(
        "{losses}\n{rest}\n\
         Over {tenants} tenants of {authors} authors, mean with its 95 % interval over tenants: own adapter {own} of the \
         base's held-out loss, another's {other}; own against another's {between} nats per token; exact first lines \
         {exact} points.\n\
         Own better than base with the interval above zero: {better} of {tenants}; worse with the interval below zero: \
         {worse}. Own better than another's with the interval above zero: {beats}; another's ahead of own: {beaten}.\n\
         Training took {seconds:.0} s in all for {tokens} target tokens ({speed:.0} tok/s with validations).\n\n\
         Measured {date} at commit {commit} on {cores} cores of {cpu} (family/model {family}, {tier}, load {load} at \
         start); base {base}, digest {digest}. At most {cap} training tokens an epoch and {validation} validation \
         tokens a package, seed {seed}.\n",
        tenants = judged.len(),
        authors = authors.len(),
        own = percent_interval(&negated(mean(&Evaluation::own_reduction))),
        other = percent_interval(&negated(mean(&Evaluation::other_reduction))),
        between = interval(&mean(&|card| card.own_over_other.mean)),
        exact = points(&mean(&|card| card.exact_match.own - card.exact_match.base)),
        better = count(&|card| card.own_over_base.low > 0.0),
        worse = count(&|card| card.own_over_base.high < 0.0),
        beats = count(&|card| card.own_over_other.low > 0.0),
        beaten = count(&|card| card.loss.other < card.loss.own),
        speed = tokens as f64 / seconds.max(f64::MIN_POSITIVE),
        date = ledger.date,
        commit = ledger.commit,
        cores = ledger.machine.cores,
        cpu = ledger.machine.cpu,
        family = ledger.machine.cpu_family,
        tier = ledger.machine.tier,
        load = ledger.machine.load,
        base = ledger.settings.base,
        digest = &ledger.settings.base_digest[..12],
        cap = ledger.settings.learn.train_tokens_max,
        validation = ledger.settings.learn.validation_tokens_max,
    )
}

fn loss_row(tenant: &Tenant, card: &Evaluation) -> Vec<String> {
    vec![
        format!("{} {}", tenant.package.name, tenant.package.version),
        tenant.training.train_tokens.to_string(),
        card.tokens.to_string(),
        format!("{:.3}", card.loss.base),
        format!("{:.3}", card.loss.own),
        format!("{:.3} ({})", card.loss.other, card.other),
        percent(-card.own_reduction()),
        interval(&card.own_over_base),
        interval(&card.own_over_other),
    ]
}

fn rest_row(tenant: &Tenant, card: &Evaluation) -> Vec<String> {
    vec![
        tenant.package.name.clone(),
        format!("{:.3}", card.bits_per_byte.base),
        format!("{:.3}", card.bits_per_byte.own),
        format!("{:.3}", card.bits_per_byte.other),
        card.items.to_string(),
        format!("{:.1} %", 100.0 * card.exact_match.base),
        format!("{:.1} %", 100.0 * card.exact_match.own),
        format!("{:.1} %", 100.0 * card.exact_match.other),
        points(&card.exact_own_over_base),
        format!("{:.0}", tenant.training.seconds),
        format!("{:.0}", tenant.training.tokens_per_second()),
    ]
}

fn interval(of: &Interval) -> String {
    format!("{:+.3} [{:+.3}, {:+.3}]", of.mean, of.low, of.high)
}

fn points(of: &Interval) -> String {
    format!("{:+.1} [{:+.1}, {:+.1}]", 100.0 * of.mean, 100.0 * of.low, 100.0 * of.high)
}

fn percent(share: f64) -> String {
    format!("{:+.1} %", 100.0 * share)
}

fn percent_interval(of: &Interval) -> String {
    format!("{} [{}, {}]", percent(of.mean), percent(of.low), percent(of.high))
}

fn negated(of: Interval) -> Interval {
    Interval { mean: -of.mean, low: -of.high, high: -of.low }
}
