//! Figures: what was measured, printed as a table and appended to the record, one JSON line each.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;

use crate::host::{Machine, commit, date};

/// Where figures are kept.
#[derive(Args, Debug, Clone)]
pub struct RecordArgs {
    /// File that every figure is appended to
    #[arg(long, default_value = "bench/results.jsonl")]
    pub record: PathBuf,
    /// Print the figures and append nothing
    #[arg(long)]
    pub no_record: bool,
}

/// A kind of figure: its name, unit, and how it is measured.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// As in the record and in `--only`.
    pub name: &'static str,
    /// Of the value.
    pub unit: &'static str,
    /// One or two sentences, also in `--help` and in each line of the record.
    pub method: &'static str,
}

/// Every kind of figure, in the order of the table.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "decode.1_stream",
        unit: "tok/s",
        method: "one client, no adapter, greedy, no prefix cache: tokens after the first / time from first to last",
    },
    Kind {
        name: "decode.1_stream_adapter",
        unit: "tok/s",
        method: "the same with one random adapter of rank 16 on all seven projections",
    },
    Kind {
        name: "decode.16_streams",
        unit: "tok/s",
        method: "16 clients at once, no adapter: tokens of all while all 16 decode / that time",
    },
    Kind { name: "decode.16_streams_1_adapter", unit: "tok/s", method: "the same, all on one adapter of rank 16" },
    Kind {
        name: "decode.16_streams_16_adapters",
        unit: "tok/s",
        method: "the same, each on an adapter of its own, all in memory",
    },
    Kind {
        name: "requests.16_streams",
        unit: "req/s",
        method: "16 clients at once, no adapter: whole requests with their prompts / time until the last ends",
    },
    Kind { name: "requests.16_streams_1_adapter", unit: "req/s", method: "the same, all on one adapter of rank 16" },
    Kind {
        name: "requests.16_streams_16_adapters",
        unit: "req/s",
        method: "the same, each on an adapter of its own, all in memory",
    },
    Kind {
        name: "prefill",
        unit: "tok/s",
        method: "one prompt, no adapter, no prefix cache: prompt tokens / time from submission to the first token",
    },
    Kind {
        name: "first_token",
        unit: "ms",
        method: "time from submission to the first token of one prompt on an idle engine, one adapter, no prefix cache",
    },
    Kind {
        name: "training",
        unit: "tok/s",
        method: "loss, gradients and AdamW of a rank-16 adapter on all seven projections: target tokens / time of a step",
    },
    Kind {
        name: "gateway.requests",
        unit: "req/s",
        method: "a server of its own process, a model of next to no cost, max_tokens 1, 16 connections kept alive: \
                 answered completions / time",
    },
    Kind { name: "gateway.p50", unit: "ms", method: "median time of those requests, seen by the client" },
    Kind { name: "gateway.p99", unit: "ms", method: "99th percentile of the same" },
    Kind {
        name: "gateway.paced_p50",
        unit: "ms",
        method: "the same at the rate in `what`, spread over 16 connections: median from the planned moment of sending",
    },
    Kind { name: "gateway.paced_p99", unit: "ms", method: "99th percentile of the same" },
    Kind {
        name: "gateway.overhead",
        unit: "ms",
        method: "median of one request after another on one connection, less the engine's own median for the same job",
    },
    Kind {
        name: "gateway.health",
        unit: "req/s",
        method: "GET /healthz over 16 connections: what HTTP alone costs, client included",
    },
    Kind {
        name: "walls.requests",
        unit: "req/s",
        method: "a server for each wall (one from before them, SQLite files, PostgreSQL pooled, schemas, databases), a \
                 model of next to no cost, one token of a tenant on `tuned`, one key, 16 connections kept alive, the \
                 servers loaded in turn: answered / time, median of the rounds",
    },
    Kind {
        name: "walls.p99",
        unit: "ms",
        method: "99th percentile of those requests of all rounds, seen by the client",
    },
    Kind {
        name: "walls.ratio",
        unit: "",
        method: "requests/s of a round by those of the first server in the same round, median of the rounds",
    },
    Kind {
        name: "walls.cold.requests",
        unit: "req/s",
        method: "the same for the first request of each of many tenants after a start, so that neither key nor place is \
                 in memory: answered / time, median of the rounds, a start each",
    },
    Kind { name: "walls.cold.p99", unit: "ms", method: "99th percentile of those requests of all rounds" },
    Kind {
        name: "walls.cold.ratio",
        unit: "",
        method: "requests/s of a round by those of the first server in the same round, median of the rounds",
    },
];

/// The kind of that name.
///
/// # Panics
/// If there is none: names are written in the code only.
pub fn kind(name: &str) -> &'static Kind {
    KINDS.iter().find(|kind| kind.name == name).expect("every figure that is measured is listed")
}

/// All methods, for `--help`.
pub fn methods() -> String {
    let mut text = String::from(
        "Method: seeds fixed, prompts and adapters random, end-of-text ignored so that every request has its full \
         length;\neach value is the median of several repeats after a warm-up. Models: --base, and random weights in \
         the two shapes\nof the targets (0.49 billion parameters with 32 new tokens, 18.9 million with 64; prompts of \
         100 tokens).\n\n",
    );
    for kind in KINDS {
        let _ = writeln!(text, "  {:<32} {:<6} {}", kind.name, kind.unit, kind.method);
    }
    text
}

/// One measured value, as it stands in the record.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// When it was measured.
    pub date: String,
    /// At which commit.
    pub commit: String,
    /// On what.
    pub machine: Machine,
    /// Name of the model.
    pub model: String,
    /// How its weights were held.
    pub weights: String,
    /// Name of the kind.
    pub name: &'static str,
    /// In `unit`.
    pub value: f64,
    /// Unit of the value.
    pub unit: &'static str,
    /// Sizes: prompt, new tokens, rows.
    pub what: String,
    /// How it was measured.
    pub method: &'static str,
}

/// Collects figures of one run.
pub struct Figures {
    machine: Machine,
    date: String,
    commit: String,
    figures: Vec<Figure>,
    /// How many of them are in the record already.
    recorded: usize,
}

impl Figures {
    /// Nothing yet.
    pub fn new(machine: Machine) -> Figures {
        Figures { machine, date: date(), commit: commit(), figures: Vec::new(), recorded: 0 }
    }

    /// Adds one value and shows it at once on standard error.
    pub fn add(&mut self, model: &str, weights: &str, name: &str, value: f64, what: &str) {
        let kind = kind(name);
        eprintln!("{model:<14} {weights:<5} {name:<32} {} {}", rounded(value), kind.unit);
        self.figures.push(Figure {
            date: self.date.clone(),
            commit: self.commit.clone(),
            machine: self.machine.clone(),
            model: model.to_owned(),
            weights: weights.to_owned(),
            name: kind.name,
            value,
            unit: kind.unit,
            what: what.to_owned(),
            method: kind.method,
        });
    }

    /// Adds one line for each figure that is not in the file yet, where figures are to be kept.
    pub fn record(&mut self, args: &RecordArgs) -> Result<()> {
        if args.no_record {
            return Ok(());
        }
        let path = &args.record;
        let mut lines = String::new();
        for figure in &self.figures[self.recorded..] {
            lines.push_str(&serde_json::to_string(figure)?);
            lines.push('\n');
        }
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        file.write_all(lines.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
        self.recorded = self.figures.len();
        Ok(())
    }

    /// A row for each kind, a column for each model and format.
    pub fn table(&self) -> String {
        let mut columns: Vec<(&str, &str)> = Vec::new();
        for figure in &self.figures {
            let column = (figure.model.as_str(), figure.weights.as_str());
            if !columns.contains(&column) {
                columns.push(column);
            }
        }
        let titles: Vec<String> = columns.iter().map(|(model, weights)| format!("{model} {weights}")).collect();
        let mut text = format!("{:<39}", "");
        titles.iter().for_each(|title| text += &format!("  {title:>18}"));
        text.push('\n');
        for kind in KINDS.iter().filter(|kind| self.figures.iter().any(|figure| figure.name == kind.name)) {
            let _ = write!(text, "{:<32} {:<6}", kind.name, kind.unit);
            for (model, weights) in &columns {
                let figure = self
                    .figures
                    .iter()
                    .find(|figure| figure.name == kind.name && figure.model == *model && figure.weights == *weights);
                let _ = write!(text, "  {:>18}", figure.map_or_else(|| "–".to_owned(), |figure| rounded(figure.value)));
            }
            text.push('\n');
        }
        text
    }
}

/// Three significant digits, whole numbers from a hundred on.
fn rounded(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0..100.0 => format!("{value:.1}"),
        1.0..10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_three_digits() {
        for (value, expected) in [(12_345.6, "12346"), (45.67, "45.7"), (3.149, "3.15"), (0.01234, "0.012")] {
            assert_eq!(rounded(value), expected);
        }
    }

    #[test]
    fn names_are_unique_and_help_lists_all() {
        let help = methods();
        for (index, kind) in KINDS.iter().enumerate() {
            assert!(KINDS[..index].iter().all(|other| other.name != kind.name), "{}", kind.name);
            assert!(help.contains(kind.method), "{}", kind.name);
        }
    }
}
