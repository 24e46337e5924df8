//! `atelier tenant`: create, list, plan, move, sign-on, suspend, resume, rotate-key, delete.

use std::io::{IsTerminal, Write};
use std::path::Path;

use anyhow::{Result, bail};
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::{SeparationArg, TenantCommand};
use crate::client::Client;
use crate::commands::sign_on;
use crate::output::{Output, table};

/// Does what was asked with tenants.
pub async fn run(data: &Path, command: TenantCommand, output: Output) -> Result<()> {
    let client = Client::find(data)?;
    match command {
        TenantCommand::Create { name, plan, separation } => {
            let tenant = create(&client, &name, plan.name(), separation.map(SeparationArg::name)).await?;
            output.result(&tenant, || {
                format!(
                    "Created tenant {name} on plan {}.\nKey (shown only now): {}\nNext: atelier learn --tenant {name} \
                     PATH --wait",
                    plan.name(),
                    text(&tenant["key"])
                )
            })
        }
        TenantCommand::List => {
            let tenants = client.get("/v1/tenants").await?;
            let heads = ["NAME", "PLAN", "SEPARATION", "STATUS", "ID"];
            output.result(&tenants, || table(&heads, &rows_of_tenants(&tenants)))
        }
        TenantCommand::Plan { name, plan } => {
            let tenant =
                client.send(Method::PATCH, &format!("/v1/tenants/{name}"), &json!({"plan": plan.name()})).await?;
            output.result(&tenant, || {
                format!("Tenant {name} is on plan {} now; its key and its model name stay.", plan.name())
            })
        }
        TenantCommand::Move { name, separation } => {
            let body = json!({"separation": separation.name()});
            let tenant = client.send(Method::PATCH, &format!("/v1/tenants/{name}"), &body).await?;
            output.result(&tenant, || format!("The rows of {name} are kept by {} now.", separation.name()))
        }
        TenantCommand::SignOn { command } => sign_on::run(client, command, output).await,
        TenantCommand::Suspend { name } => {
            let tenant = set_status(&client, &name, "suspended").await?;
            output.result(&tenant, || format!("Tenant {name} is suspended. Next: atelier tenant resume {name}"))
        }
        TenantCommand::Resume { name } => {
            let tenant = set_status(&client, &name, "active").await?;
            output.result(&tenant, || format!("Tenant {name} goes on; its keys are good again."))
        }
        TenantCommand::RotateKey { name } => {
            let key = client.send(Method::POST, &format!("/v1/tenants/{name}/keys"), &json!({})).await?;
            let object = json!({"id": key["id"], "tenant": name, "key": key["value"]});
            output.result(&object, || {
                format!("New key of {name} (shown only now): {}\nThe keys before it are revoked.", text(&key["value"]))
            })
        }
        TenantCommand::Delete { name, yes } => {
            if !yes {
                confirm(&name)?;
            }
            let deleted = client.send(Method::DELETE, &format!("/v1/tenants/{name}"), &json!({})).await?;
            output.result(&deleted, || certificate(&name, &deleted["erasure"]))
        }
        TenantCommand::Erased => {
            let erasures = client.get("/v1/erasures").await?;
            output.result(&erasures, || table(&["TENANT", "REQUESTED", "COMPLETED", "BY"], &rows_of_erased(&erasures)))
        }
    }
}

/// Creates a tenant: `{"id", "name", "plan", "key"}`.
pub async fn create(client: &Client, name: &str, plan: &str, separation: Option<&str>) -> Result<Value> {
    let mut body = json!({"name": name, "plan": plan});
    if let Some(separation) = separation {
        body["separation"] = separation.into();
    }
    let tenant = client.send(Method::POST, "/v1/tenants", &body).await?;
    Ok(json!({
        "id": tenant["id"], "name": tenant["name"], "plan": tenant["plan"], "key": tenant["key"]["value"],
    }))
}

async fn set_status(client: &Client, name: &str, status: &str) -> Result<Value> {
    client.send(Method::PATCH, &format!("/v1/tenants/{name}"), &json!({"status": status})).await
}

fn rows_of_tenants(tenants: &Value) -> Vec<Vec<String>> {
    let row = |tenant: &Value| ["name", "plan", "separation", "status", "id"].map(|key| text(&tenant[key])).to_vec();
    tenants["data"].as_array().into_iter().flatten().map(row).collect()
}

fn rows_of_erased(erasures: &Value) -> Vec<Vec<String>> {
    let row = |erasure: &Value| {
        let time = |key: &str| Timestamp::from_second(erasure[key].as_i64()?).ok();
        let at = |key: &str| time(key).map_or_else(|| "not yet".to_owned(), |at| at.to_string());
        vec![text(&erasure["id"]), at("requested_at"), at("completed_at"), text(&erasure["requested_by"])]
    };
    erasures["data"].as_array().into_iter().flatten().map(row).collect()
}

/// What was removed, for people.
fn certificate(name: &str, erasure: &Value) -> String {
    let removed = erasure["removed"].as_object().into_iter().flatten();
    let kinds: Vec<String> = removed
        .filter(|(_, count)| count.as_u64() != Some(0))
        .map(|(kind, count)| format!("{count} {}", kind.replace('_', " ")))
        .collect();
    format!(
        "Tenant {name} ({}) is erased: {}. The keys to what copies may hold of it are destroyed.\nUsage and the audit \
         trail stay. Certificates: atelier tenant erased --json",
        text(&erasure["id"]),
        kinds.join(", ")
    )
}

fn confirm(name: &str) -> Result<()> {
    if !std::io::stdin().is_terminal() {
        bail!("Deleting a tenant cannot be undone. Say --yes to do it without asking.");
    }
    eprint!("Delete tenant {name} with its data and adapters? Type its name to do it: ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if answer.trim() != name {
        bail!("Nothing was deleted.");
    }
    Ok(())
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
