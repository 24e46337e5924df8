//! `atelier learn`: a folder of code → an adapter that is live, or a reason why not.

use std::path::Path;

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use super::runs;
use crate::cli::{LearnArgs, RecipeArgs};
use crate::client::Client;
use crate::output::Output;

/// Learns.
pub async fn run(data: &Path, args: LearnArgs, output: Output) -> Result<()> {
    let client = Client::find(data)?.for_tenant(args.tenant.name.as_deref());
    let source = runs::give_source(&client, &args.path).await?;
    let run = runs::start(&client, "learn", &source, recipe(&args.recipe)).await?;
    if !args.wait {
        return output.result(&json!({"run": run["id"], "status": run["status"]}), || {
            format!("Run {} is queued. `atelier learn … --wait` would have followed it.", run["id"])
        });
    }
    let label = args.tenant.name.as_deref().unwrap_or("learn");
    let run = runs::follow(&client, &run, label, output).await?;
    let object = result(&run);
    output.result(&object, || describe(&run))?;
    if run["status"] == "failed" {
        bail!("{}", run["reason"].as_str().unwrap_or("The run failed."));
    }
    Ok(())
}

/// What a finished run of learning came to.
pub fn result(run: &Value) -> Value {
    json!({
        "run": run["id"], "status": run["status"], "version": run["version"], "reason": run["reason"],
        "seconds": run["result"]["seconds"], "samples": run["result"]["samples"], "eval": run["result"]["eval"],
    })
}

/// An eval card in a few lines.
pub fn describe(run: &Value) -> String {
    let eval = &run["result"]["eval"];
    let mut lines = vec![format!("Run {}: {}", text(&run["id"]), text(&run["status"]))];
    if let Some(reason) = run["reason"].as_str() {
        lines.push(reason.to_owned());
    }
    if eval.is_object() {
        lines.push(format!(
            "Version {} after {:.0} s: held-out loss {:.3} → {:.3}, bits per byte {:.3} → {:.3}, first line exact {:.0} % → {:.0} %",
            text(&run["version"]),
            run["result"]["seconds"].as_f64().unwrap_or_default(),
            number(eval, "loss", "base"),
            number(eval, "loss", "own"),
            number(eval, "bits_per_byte", "base"),
            number(eval, "bits_per_byte", "own"),
            number(eval, "exact_match", "base") * 100.0,
            number(eval, "exact_match", "own") * 100.0,
        ));
        lines.push(format!(
            "Gain in loss, 95 % interval of the paired difference: {:.3} to {:.3}",
            eval["paired_loss_ci95"][0].as_f64().unwrap_or(f64::NAN),
            eval["paired_loss_ci95"][1].as_f64().unwrap_or(f64::NAN),
        ));
    }
    lines.join("\n")
}

fn recipe(args: &RecipeArgs) -> Value {
    let mut options = Map::new();
    let told = [
        ("rank", args.rank.map(Value::from)),
        ("alpha", args.alpha.map(Value::from)),
        ("dropout", args.dropout.map(Value::from)),
        ("learning_rate", args.learning_rate.map(Value::from)),
        ("epochs", args.epochs.map(Value::from)),
        ("seed", args.seed.map(Value::from)),
    ];
    for (name, value) in told {
        if let Some(value) = value {
            options.insert(name.to_owned(), value);
        }
    }
    Value::Object(options)
}

fn number(eval: &Value, metric: &str, arm: &str) -> f64 {
    eval[metric][arm].as_f64().unwrap_or(f64::NAN)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
