//! `atelier versions` and `atelier rollback`.

use anyhow::{Result, anyhow};
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::{RollbackArgs, TenantArg};
use crate::client::{Client, Place, Refusal};
use crate::output::{Output, table_or};

/// Lists a tenant's versions.
pub async fn list(place: &Place, args: TenantArg, output: Output) -> Result<()> {
    let client = Client::find(place)?.for_tenant(args.name.as_deref());
    let versions = client.get("/v1/versions").await?;
    output.result(&versions, || describe(&versions))
}

/// Points `live` at an older version.
pub async fn roll_back(place: &Place, args: RollbackArgs, output: Output) -> Result<()> {
    let client = Client::find(place)?.for_tenant(args.tenant.name.as_deref());
    let target = args.to.map_or_else(|| json!("previous"), Value::from);
    let versions = client.send(Method::PUT, "/v1/aliases/live", &json!({"version": target})).await;
    let versions = versions.map_err(|error| match error.downcast_ref::<Refusal>() {
        Some(refusal) if refusal.code == "no_previous_version" => anyhow!(
            "No version was live before, so there is none to go back to. `atelier versions` lists what there is, --to \
             VERSION names one; on the plan `shared` (`atelier tenant plan NAME shared`) the base alone is served. ({})",
            client.url()
        ),
        Some(refusal) if refusal.status == 404 && refusal.code == "not_found" && args.to.is_some() => {
            anyhow!("There is no version {target}. `atelier versions` lists what there is. ({})", client.url())
        }
        _ => error,
    })?;
    output
        .result(&versions, || format!("Live is now version {}.\n{}", versions["aliases"]["live"], describe(&versions)))
}

fn describe(versions: &Value) -> String {
    let rows: Vec<Vec<String>> = versions["data"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|version| {
            let aliases: Vec<&str> =
                version["aliases"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let arm = |arm: &str| {
                version["eval"]["loss"][arm].as_f64().map_or_else(|| "-".to_owned(), |loss| format!("{loss:.3}"))
            };
            vec![
                version["number"].to_string(),
                aliases.join(", "),
                arm("base"),
                arm("own"),
                version["id"].as_str().unwrap_or_default().to_owned(),
            ]
        })
        .collect();
    let nothing = "There are no versions yet: the base alone is served. `atelier learn PATH --wait` makes one.";
    table_or(nothing, &["VERSION", "ALIASES", "BASE LOSS", "OWN LOSS", "MODEL"], &rows)
}
