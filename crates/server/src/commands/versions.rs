//! `atelier versions` and `atelier rollback`.

use std::path::Path;

use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::{RollbackArgs, TenantArg};
use crate::client::Client;
use crate::output::{Output, table};

/// Lists a tenant's versions.
pub async fn list(data: &Path, args: TenantArg, output: Output) -> Result<()> {
    let client = Client::find(data)?.for_tenant(args.name.as_deref());
    let versions = client.get("/v1/versions").await?;
    output.result(&versions, || describe(&versions))
}

/// Points `live` at an older version.
pub async fn roll_back(data: &Path, args: RollbackArgs, output: Output) -> Result<()> {
    let client = Client::find(data)?.for_tenant(args.tenant.name.as_deref());
    let target = args.to.map_or_else(|| json!("previous"), Value::from);
    let versions = client.send(Method::PUT, "/v1/aliases/live", &json!({"version": target})).await?;
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
    table(&["VERSION", "ALIASES", "BASE LOSS", "OWN LOSS", "MODEL"], &rows)
}
