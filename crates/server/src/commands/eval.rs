//! `atelier eval`: what the tenant is served against the base, on code that it has not learned from.

use anyhow::Result;
use serde_json::{Value, json};

use super::runs;
use crate::cli::EvalArgs;
use crate::client::{Client, Place};
use crate::output::Output;

/// Measures.
pub async fn run(place: &Place, args: EvalArgs, output: Output) -> Result<()> {
    let client = Client::find(place)?.for_tenant(args.tenant.name.as_deref());
    let source = runs::give_source(&client, &args.path).await?;
    let run = runs::start(&client, "evaluate", &source, json!({})).await?;
    let run = runs::follow(&client, &run, "eval", output).await?;
    runs::check_end(&run)?;
    let card = &run["result"]["eval"];
    output.result(card, || describe(card))
}

/// A card in a few lines.
pub fn describe(card: &Value) -> String {
    let pair = |metric: &str| {
        format!(
            "{:.3} → {:.3}",
            card[metric]["base"].as_f64().unwrap_or(f64::NAN),
            card[metric]["own"].as_f64().unwrap_or(f64::NAN)
        )
    };
    format!(
        "{} items, base → own\nloss            {}\nbits per byte   {}\nexact match     {}\ngain in loss    {:.3} to {:.3} (95 %)",
        card["items"],
        pair("loss"),
        pair("bits_per_byte"),
        pair("exact_match"),
        card["paired_loss_ci95"][0].as_f64().unwrap_or(f64::NAN),
        card["paired_loss_ci95"][1].as_f64().unwrap_or(f64::NAN),
    )
}
