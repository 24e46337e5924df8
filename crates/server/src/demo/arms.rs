//! Each tenant's held-out text under the base, its own adapter, and the next tenant's.

use anyhow::{Context, Result};
use atelier_domain::{RunId, VersionNumber};
use atelier_platform::{Interval, SourceFile};
use serde_json::Value;

use super::tenants::DemoTenant;
use crate::output;
use crate::serve::Server;

/// Mean loss per token of held-out text, nats, under each arm.
pub struct Arms {
    /// The base alone.
    pub base: f64,
    /// With the tenant's own adapter.
    pub own: f64,
    /// With the next tenant's adapter.
    pub other: f64,
    /// 95 % interval of the paired difference; above zero means that own is better.
    pub own_vs_base: Interval,
}

/// All arms of all tenants.
pub async fn compare(server: &Server, tenants: &[DemoTenant]) -> Result<Vec<Arms>> {
    let mut learned = Vec::new();
    for tenant in tenants {
        let caller = server.platform.authenticate(&tenant.key).await?;
        let run: RunId = text(&tenant.run["id"])?.parse()?;
        let held_out = server.platform.held_out(&caller, run).await?;
        let version = tenant.run["version"]
            .as_u64()
            .and_then(|number| VersionNumber::try_from(i64::try_from(number).ok()?).ok())
            .with_context(|| {
                format!("{} has no version: {}", tenant.name, tenant.run["reason"].as_str().unwrap_or("refused"))
            })?;
        learned.push((held_out, server.platform.adapter(&caller, version).await?));
    }
    let model = server.platform.base_model_for_training().await?;
    let count = learned.len();
    tokio::task::spawn_blocking(move || {
        let arm = |files: &[SourceFile], adapter| atelier_platform::held_out_losses(&model, adapter, files);
        let arms = (0..count).map(|index| {
            let (files, own) = &learned[index];
            let (_, other) = &learned[(index + 1) % count];
            let (base, own, other) = (arm(files, None)?, arm(files, Some(own))?, arm(files, Some(other))?);
            Ok(Arms {
                base: atelier_platform::mean_loss(&base),
                own: atelier_platform::mean_loss(&own),
                other: atelier_platform::mean_loss(&other),
                own_vs_base: atelier_platform::paired_ci95(&base, &own, 0),
            })
        });
        arms.collect()
    })
    .await?
}

/// The arms as rows for people.
pub fn table(tenants: &[DemoTenant], arms: &[Arms]) -> String {
    let rows: Vec<Vec<String>> = tenants
        .iter()
        .zip(arms)
        .map(|(tenant, arms)| {
            vec![
                format!("     {}", tenant.name),
                format!("{:.3}", arms.base),
                format!("{:.3}", arms.own),
                format!("{:.3}", arms.other),
                format!("{:.3} to {:.3}", arms.own_vs_base.low, arms.own_vs_base.high),
            ]
        })
        .collect();
    output::table(&["     TENANT", "BASE", "OWN", "OTHER'S", "OWN BETTER BY (95 %)"], &rows)
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().context("The run has no id.")
}
