//! `atelier tenant`: create, list, plan, move, suspend, resume, rotate-key, delete.

use std::io::{IsTerminal, Write};
use std::path::Path;

use anyhow::{Result, bail};
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::{SeparationArg, TenantCommand};
use crate::client::Client;
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
            output.result(&tenants, || {
                let rows: Vec<Vec<String>> = tenants["data"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|tenant| ["name", "plan", "separation", "status", "id"].map(|key| text(&tenant[key])).to_vec())
                    .collect();
                table(&["NAME", "PLAN", "SEPARATION", "STATUS", "ID"], &rows)
            })
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
            output.result(&deleted, || format!("Tenant {name}, its keys, its data and its adapters are gone."))
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
