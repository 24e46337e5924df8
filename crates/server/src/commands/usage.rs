//! `atelier usage`: what a tenant used on the last days.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use jiff::Timestamp;
use serde_json::Value;

use crate::cli::TenantArg;
use crate::client::{Client, Place};
use crate::output::{Output, table_or};

/// How far back.
const DAYS: u32 = 30;

/// Prints it.
pub async fn run(place: &Place, args: TenantArg, output: Output) -> Result<()> {
    let client = Client::find(place)?.for_tenant(args.name.as_deref());
    let page = read(&client).await?;
    output.result(&page, || describe(&page))
}

/// The usage of the last days, by day and model.
pub async fn read(client: &Client) -> Result<Value> {
    let day = Duration::from_secs(24 * 60 * 60);
    let start = SystemTime::now().duration_since(UNIX_EPOCH)?.saturating_sub(day * DAYS).as_secs();
    client
        .get(&format!("/v1/organization/usage/completions?start_time={start}&bucket_width=1d&group_by=model&limit=31"))
        .await
}

/// One row per day and model that was used.
pub fn describe(page: &Value) -> String {
    let buckets = page["data"].as_array().into_iter().flatten();
    let rows: Vec<Vec<String>> = buckets
        .flat_map(|bucket| bucket["results"].as_array().into_iter().flatten().map(move |result| (bucket, result)))
        .map(|(bucket, result)| {
            let day = bucket["start_time"].as_i64().and_then(|second| Timestamp::from_second(second).ok());
            vec![
                day.map(|day| day.strftime("%Y-%m-%d").to_string()).unwrap_or_default(),
                result["model"].as_str().unwrap_or_default().to_owned(),
                result["num_model_requests"].to_string(),
                result["input_tokens"].to_string(),
                result["input_cached_tokens"].to_string(),
                result["output_tokens"].to_string(),
            ]
        })
        .collect();
    table_or("Nothing was used in the last 30 days.", &["DAY", "MODEL", "REQUESTS", "INPUT", "CACHED", "OUTPUT"], &rows)
}
