//! `atelier learn`: a folder of code → an adapter that is live, or a reason why not.

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::runs;
use crate::cli::{LearnArgs, RecipeArgs};
use crate::client::{Client, Place};
use crate::output::{Output, text};

/// Learns.
pub async fn run(place: &Place, args: LearnArgs, output: Output) -> Result<()> {
    let tenant = args.tenant.name.as_deref();
    let client = Client::find(place)?.for_tenant(tenant);
    let source = runs::give_source(&client, &args.path).await?;
    let run = runs::start(&client, "learn", &source, recipe(&args.recipe)).await?;
    let flags = tenant.map(|name| format!(" --tenant {name}")).unwrap_or_default() + &place.flag();
    let queued = format!("Run {0} is queued. `atelier runs follow {0}{flags}` follows it", text(&run["id"]));
    if !args.wait {
        return output.result(&json!({"run": run["id"], "status": run["status"]}), || format!("{queued}."));
    }
    output.say(format!("{queued}, should this end before."));
    let run = runs::follow(&client, &run, tenant.unwrap_or("learn"), output).await?;
    output.result(&result(&run), || describe(&run))?;
    runs::check_end(&run)
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
            "{} after {:.0} s: held-out loss {:.3} → {:.3}, bits per byte {:.3} → {:.3}, first line exact {:.0} % → {:.0} %",
            run["version"].as_u64().map_or_else(|| "No version".to_owned(), |number| format!("Version {number}")),
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
