//! Giving code to the server and following what it makes of it: shared by `learn`, `eval` and the demo.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::Client;
use crate::output::Output;

/// Time between two looks at a run.
const POLL: Duration = Duration::from_millis(300);

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
        if let (Some(step), Some(steps)) = (run["progress"]["step"].as_u64(), run["progress"]["steps"].as_u64()) {
            bar.set_length(steps);
            bar.set_position(step);
        }
        bar.set_message(run["status"].as_str().unwrap_or_default().to_owned());
        if matches!(run["status"].as_str(), Some("live" | "refused" | "failed" | "cancelled" | "succeeded")) {
            bar.finish_and_clear();
            return Ok(run);
        }
        tokio::time::sleep(POLL).await;
    }
}

fn progress_bar(label: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("  {prefix:<12} {bar:32} {pos}/{len} {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar.set_prefix(label.to_owned());
    bar
}

fn read_archive(path: &Path) -> Result<Vec<u8>> {
    let is_archive = path.to_str().is_some_and(|name| name.ends_with(".tar.gz") || name.ends_with(".tgz"));
    if is_archive && path.is_file() {
        return std::fs::read(path).with_context(|| format!("Cannot read {}.", path.display()));
    }
    Ok(atelier_platform::pack_folder(path)?)
}
