//! `atelier runs`: list, cancel and follow; and giving code to the server and following what it makes of it, which
//! `learn`, `eval` and the demo share.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use atelier_domain::RunId;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use super::{eval, learn};
use crate::cli::tenant;
use crate::client::{Client, Place};
use crate::output::{Output, table_or, text};

/// Time between two looks at a run.
const POLL: Duration = Duration::from_millis(300);

/// Which runs, and what to do with them.
#[derive(Debug, Clone, Args)]
pub struct RunsArgs {
    /// The tenant's name or id. Needed with the operator's key; with a tenant's own key it is that tenant.
    #[arg(long, global = true, value_name = "NAME", value_parser = tenant)]
    pub tenant: Option<String>,

    /// What to do with one; all are listed without.
    #[command(subcommand)]
    pub command: Option<RunsCommand>,
}

/// What to do with a run.
#[derive(Debug, Clone, Subcommand)]
pub enum RunsCommand {
    /// Stop a run that waits or learns; what is live stays.
    #[command(after_help = "Example:\n  atelier runs cancel run_0190d1f2a3b47c5d8e9f001122334455 --tenant acme")]
    Cancel {
        /// The run's id, `run_…`.
        run: RunId,
    },
    /// Wait until a run ends, with a progress bar, and print what came of it.
    #[command(
        after_help = "Exit status: 0 when the run succeeded; 3 when it was refused, failed or was cancelled.\n\nExample:\n  atelier runs follow run_0190d1f2a3b47c5d8e9f001122334455 --tenant acme"
    )]
    Follow {
        /// The run's id, `run_…`.
        run: RunId,
    },
}

/// A run that was waited for and came to nothing: what was live before it still is.
#[derive(Debug)]
pub struct RunEnded(String);

impl fmt::Display for RunEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RunEnded {}

/// Does what was asked with runs.
pub async fn run(place: &Place, args: RunsArgs, output: Output) -> Result<()> {
    let client = Client::find(place)?.for_tenant(args.tenant.as_deref());
    match args.command {
        None => {
            let runs = client.get("/v1/runs").await?;
            output.result(&runs, || list(&runs))
        }
        Some(RunsCommand::Cancel { run }) => {
            let run = client.send(Method::POST, &format!("/v1/runs/{run}/cancel"), &json!({})).await?;
            output.result(&run, || {
                let id = text(&run["id"]);
                match run["status"].as_str() {
                    Some("cancelled") => format!("Run {id} is cancelled; what is live stays."),
                    _ => format!("Run {id} stops at its next step; what is live stays."),
                }
            })
        }
        Some(RunsCommand::Follow { run }) => {
            let run = client.get(&format!("/v1/runs/{run}")).await?;
            let run = follow(&client, &run, args.tenant.as_deref().unwrap_or("run"), output).await?;
            output.result(&run, || describe(&run))?;
            check_end(&run)
        }
    }
}

/// Whether a run that has ended did what it was for.
pub fn check_end(run: &Value) -> Result<()> {
    let status = run["status"].as_str().unwrap_or_default();
    if matches!(status, "live" | "succeeded") {
        return Ok(());
    }
    let reason = run["reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
    let word = if status == "failed" { "failed" } else { &format!("was {status}") };
    Err(RunEnded(format!("Run {} {word}, and what was live stays{reason}", text(&run["id"]))).into())
}

fn list(runs: &Value) -> String {
    let row = |run: &Value| {
        let created = run["created_at"].as_i64().and_then(|second| Timestamp::from_second(second).ok());
        let progress = &run["progress"];
        let stage = match (run["status"].as_str(), progress["steps"].as_u64()) {
            (Some("running"), Some(0)) => text(&progress["stage"]),
            (Some("running"), Some(steps)) => format!("{} {}/{steps}", text(&progress["stage"]), progress["step"]),
            _ => "-".to_owned(),
        };
        vec![
            text(&run["id"]),
            text(&run["kind"]),
            text(&run["status"]),
            stage,
            text(&run["version"]),
            created.map(|at| at.to_string()).unwrap_or_default(),
        ]
    };
    let rows: Vec<Vec<String>> = runs["data"].as_array().into_iter().flatten().map(row).collect();
    table_or(
        "There are no runs yet. `atelier learn PATH --wait` starts one.",
        &["RUN", "KIND", "STATUS", "STAGE", "VERSION", "CREATED"],
        &rows,
    )
}

fn describe(run: &Value) -> String {
    match &run["result"]["eval"] {
        card if run["kind"] == "evaluate" && card.is_object() => eval::describe(card),
        _ => learn::describe(run),
    }
}

/// Uploads a folder or an archive as a source; its id.
pub async fn give_source(client: &Client, path: &Path) -> Result<String> {
    let packed = path.to_owned();
    let archive = tokio::task::spawn_blocking(move || read_archive(&packed)).await??;
    let name = path.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let name = name.unwrap_or_else(|| "source".to_owned());
    let query: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
    let source = client.upload(&format!("/v1/sources?name={query}"), "application/gzip", archive).await?;
    source["id"].as_str().map(str::to_owned).context("The server's answer names no source.")
}

/// Starts a run; its object.
pub async fn start(client: &Client, kind: &str, source: &str, options: Value) -> Result<Value> {
    client.send(Method::POST, "/v1/runs", &json!({"kind": kind, "source": source, "options": options})).await
}

/// Waits until a run ends, showing how far it is; its object.
pub async fn follow(client: &Client, run: &Value, label: &str, output: Output) -> Result<Value> {
    let id = run["id"].as_str().context("The server's answer names no run.")?;
    let bar = progress_bar(label);
    let mut after = 0;
    loop {
        let run = client.get(&format!("/v1/runs/{id}")).await?;
        let events = client.get(&format!("/v1/runs/{id}/events?after={after}")).await?;
        for event in events["data"].as_array().into_iter().flatten() {
            after = event["sequence"].as_u64().unwrap_or(after).max(after);
            if event["type"] == "message" {
                bar.println(format!("  {label}: {}", event["message"].as_str().unwrap_or_default()));
                if bar.is_hidden() {
                    output.say(format!("  {label}: {}", event["message"].as_str().unwrap_or_default()));
                }
            }
        }
        show_progress(&bar, &run);
        if matches!(run["status"].as_str(), Some("live" | "refused" | "failed" | "cancelled" | "succeeded")) {
            bar.finish_and_clear();
            return Ok(run);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// A stage that is counted in steps, and one that is not.
const WITH_STEPS: &str = "  {prefix:<12} {bar:32} {pos}/{len}  {elapsed_precise}  {msg}";
const WITHOUT_STEPS: &str = "  {prefix:<12} {spinner} {elapsed_precise}  {msg}";

fn progress_bar(label: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_prefix(label.to_owned());
    bar
}

/// How far a run is, and at what: a bar has an end only where the run knows one.
fn show_progress(bar: &ProgressBar, run: &Value) {
    let progress = &run["progress"];
    let (step, steps) = (progress["step"].as_u64().unwrap_or(0), progress["steps"].as_u64().unwrap_or(0));
    if let Ok(style) = ProgressStyle::with_template(if steps > 0 { WITH_STEPS } else { WITHOUT_STEPS }) {
        bar.set_style(style);
    }
    if steps > 0 {
        bar.set_length(steps);
        bar.set_position(step);
    } else {
        bar.tick();
    }
    let status = run["status"].as_str().unwrap_or_default();
    let stage = progress["stage"].as_str().filter(|stage| status == "running" && !stage.is_empty());
    bar.set_message(stage.unwrap_or(status).to_owned());
}

fn read_archive(path: &Path) -> Result<Vec<u8>> {
    let is_archive = path.to_str().is_some_and(|name| name.ends_with(".tar.gz") || name.ends_with(".tgz"));
    if is_archive && path.is_file() {
        return std::fs::read(path).with_context(|| format!("Cannot read {}.", path.display()));
    }
    Ok(atelier_platform::pack_folder(path)?)
}
