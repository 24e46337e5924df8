//! `atelier tenant`: create, list, plan, move, sign-on, export, suspend, resume, rotate-key, delete, erased.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Subcommand, ValueEnum};
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::cli::tenant;
use crate::client::{Client, Place};
use crate::commands::sign_on::{self, SignOnCommand};
use crate::output::{Output, table_or, text};

/// What to do with tenants.
#[derive(Debug, Subcommand)]
pub enum TenantCommand {
    /// Create a tenant; prints its key, once.
    #[command(
        after_help = "Examples:\n  atelier tenant create acme\n  atelier tenant create acme --plan shared\n  atelier tenant create acme --separation schema"
    )]
    Create {
        /// Lower-case letters, digits and hyphens.
        name: String,
        /// What it is served: the base alone, or the base with its own adapter.
        #[arg(long, value_enum, default_value_t = PlanArg::Tuned)]
        plan: PlanArg,
        /// Where its rows are, on PostgreSQL; with the others' when absent.
        #[arg(long, value_enum)]
        separation: Option<SeparationArg>,
        /// Bucket of its own for its blobs, which must exist; the shared one when absent.
        #[arg(long, value_name = "BUCKET")]
        bucket: Option<String>,
    },
    /// List all tenants.
    #[command(after_help = "Example:\n  atelier tenant list")]
    List,
    /// Move a tenant to another plan; its key and its model name stay.
    #[command(after_help = "Example:\n  atelier tenant plan acme shared")]
    Plan {
        /// The tenant, by name or id.
        #[arg(value_parser = tenant)]
        name: String,
        /// The new plan.
        #[arg(value_enum)]
        plan: PlanArg,
    },
    /// Move a tenant's rows to a place of another kind, on PostgreSQL, or its blobs to another bucket; its clients notice
    /// a pause.
    #[command(
        group(clap::ArgGroup::new("where").required(true).multiple(true)),
        after_help = "Examples:\n  atelier tenant move acme --separation database\n  atelier tenant move acme --bucket acme-code"
    )]
    Move {
        /// The tenant, by name or id.
        #[arg(value_parser = tenant)]
        name: String,
        /// Where its rows go.
        #[arg(long, value_enum, group = "where")]
        separation: Option<SeparationArg>,
        /// Where its blobs go: a bucket of its own, which must exist.
        #[arg(long, value_name = "BUCKET", group = "where", conflicts_with = "shared_bucket")]
        bucket: Option<String>,
        /// Its blobs go to the bucket that tenants share.
        #[arg(long, group = "where")]
        shared_bucket: bool,
    },
    /// Write all that a tenant has into one archive: sources, runs, versions with their adapters, usage, audit trail.
    #[command(after_help = "Example:\n  atelier tenant export acme --out acme.tar.gz")]
    Export {
        /// The tenant, by name or id.
        #[arg(value_parser = tenant)]
        name: String,
        /// File to write, a tar.gz; it must not exist.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Let people sign in with the tenant's own issuer (OpenID Connect).
    SignOn {
        /// What to do with it.
        #[command(subcommand)]
        command: SignOnCommand,
    },
    /// Let a tenant do nothing for now: its keys answer 403, its streams are cut, its runs wait; its data stays.
    #[command(after_help = "Example:\n  atelier tenant suspend acme")]
    Suspend {
        /// The tenant, by name or id.
        #[arg(value_parser = tenant)]
        name: String,
    },
    /// Let a suspended tenant go on.
    #[command(after_help = "Example:\n  atelier tenant resume acme")]
    Resume {
        /// The tenant, by name or id.
        #[arg(value_parser = tenant)]
        name: String,
    },
    /// Make a new key, print it once, and revoke the tenant's others.
    #[command(after_help = "Example:\n  atelier tenant rotate-key acme")]
    RotateKey {
        /// The tenant, by name or id.
        #[arg(value_parser = tenant)]
        name: String,
    },
    /// Erase a tenant, its keys, its data and its adapters; prints the certificate of it.
    #[command(after_help = "Example:\n  atelier tenant delete acme --yes")]
    Delete {
        /// The tenant, by name or id.
        #[arg(value_parser = tenant)]
        name: String,
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
    },
    /// List the certificates of erased tenants.
    #[command(after_help = "Example:\n  atelier tenant erased --json")]
    Erased,
}

/// The plans that can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlanArg {
    /// The base alone.
    Shared,
    /// The base with the tenant's own adapter.
    Tuned,
    /// A model process of its own: to come, and refused until then.
    Dedicated,
}

impl PlanArg {
    /// The plan's name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Tuned => "tuned",
            Self::Dedicated => "dedicated",
        }
    }
}

/// Where a tenant's rows can be on PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SeparationArg {
    /// In tables that tenants share, under row level security.
    Pooled,
    /// In a schema of its own.
    Schema,
    /// In a database of its own.
    Database,
}

impl SeparationArg {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pooled => "pooled",
            Self::Schema => "schema",
            Self::Database => "database",
        }
    }
}

/// Does what was asked with tenants.
pub async fn run(place: &Place, command: TenantCommand, output: Output) -> Result<()> {
    let client = Client::find(place)?;
    match command {
        TenantCommand::Create { name, plan, separation, bucket } => {
            let apart = Separate { separation: separation.map(SeparationArg::name), bucket: bucket.as_deref() };
            let tenant = create(&client, &name, plan.name(), apart).await?;
            output.result(&tenant, || created(&tenant, place))
        }
        TenantCommand::List => {
            let tenants = client.get("/v1/tenants").await?;
            output.result(&tenants, || describe(&tenants))
        }
        TenantCommand::Plan { name, plan } => {
            let tenant =
                client.send(Method::PATCH, &format!("/v1/tenants/{name}"), &json!({"plan": plan.name()})).await?;
            output.result(&tenant, || {
                format!("Tenant {name} is on plan {} now; its key and its model name stay.", plan.name())
            })
        }
        TenantCommand::Move { name, separation, bucket, shared_bucket } => {
            let bucket = if shared_bucket { Some("") } else { bucket.as_deref() };
            let body = Separate { separation: separation.map(SeparationArg::name), bucket }.into_body();
            let tenant = client.send(Method::PATCH, &format!("/v1/tenants/{name}"), &body).await?;
            output.result(&tenant, || moved(&name, &tenant))
        }
        TenantCommand::Export { name, out } => {
            let exported = export(client.for_tenant(Some(&name)), &name, &out).await?;
            output.result(&exported, || {
                let bytes = &exported["bytes"];
                format!("All of {name} is in {}: {bytes} bytes. manifest.json in it says what.", out.display())
            })
        }
        TenantCommand::SignOn { command } => sign_on::run(place, command, output).await,
        TenantCommand::Suspend { name } => {
            let tenant = set_status(&client, &name, "suspended").await?;
            output.result(&tenant, || {
                format!("Tenant {name} is suspended. It goes on with: atelier tenant resume {name}{}", place.flag())
            })
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
            output.result(&erasures, || {
                let headings = ["TENANT", "REQUESTED", "COMPLETED", "BY"];
                table_or("No tenant was erased.", &headings, &rows_of_erased(&erasures))
            })
        }
    }
}

/// Where a tenant's rows and blobs are to be, where that was said.
#[derive(Debug, Clone, Copy, Default)]
pub struct Separate<'a> {
    /// How its rows are kept apart.
    pub separation: Option<&'a str>,
    /// The bucket of its blobs; nothing for the one that tenants share.
    pub bucket: Option<&'a str>,
}

impl Separate<'_> {
    fn into_body(self) -> Value {
        let said = [("separation", self.separation), ("bucket", self.bucket)];
        said.into_iter()
            .filter_map(|(field, value)| Some((field.to_owned(), json!(value?))))
            .collect::<Map<_, _>>()
            .into()
    }
}

/// Creates a tenant: `{"id", "name", "plan", "key"}`.
pub async fn create(client: &Client, name: &str, plan: &str, apart: Separate<'_>) -> Result<Value> {
    let mut body = apart.into_body();
    body["name"] = name.into();
    body["plan"] = plan.into();
    let tenant = client.send(Method::POST, "/v1/tenants", &body).await?;
    Ok(json!({
        "id": tenant["id"], "name": tenant["name"], "plan": tenant["plan"], "key": tenant["key"]["value"],
    }))
}

async fn set_status(client: &Client, name: &str, status: &str) -> Result<Value> {
    client.send(Method::PATCH, &format!("/v1/tenants/{name}"), &json!({"status": status})).await
}

fn created(tenant: &Value, place: &Place) -> String {
    let [name, plan, key] = ["name", "plan", "key"].map(|field| text(&tenant[field]));
    let learns = plan != PlanArg::Shared.name();
    let (next, of_what) = if learns { ("learn", "PATH --wait") } else { ("complete", "--file FILE --line N") };
    format!(
        "Created tenant {name} on plan {plan}.\nKey (shown only now): {key}\nNext: atelier {next} --tenant {name} {of_what}{}",
        place.flag()
    )
}

fn moved(name: &str, tenant: &Value) -> String {
    let bucket = tenant["bucket"].as_str().unwrap_or("the one that tenants share");
    format!("The rows of {name} are kept by {} now; the bucket of its blobs is {bucket}.", text(&tenant["separation"]))
}

/// Writes the archive beside its place and moves it there when it is whole.
async fn export(client: Client, name: &str, out: &Path) -> Result<Value> {
    if out.exists() {
        bail!("{} is there already. Name a file that is not.", out.display());
    }
    let mut draft = out.as_os_str().to_owned();
    draft.push(".part");
    let draft = Path::new(&draft);
    // It holds the tenant's code.
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(draft);
    let mut file = file.with_context(|| format!("Cannot write {}.", out.display()))?;
    let downloaded = client.download("/v1/organization/export", &mut file).await;
    let written = downloaded.and_then(|bytes| {
        file.sync_all()?;
        std::fs::rename(draft, out)?;
        Ok(bytes)
    });
    if written.is_err() {
        let _ = std::fs::remove_file(draft);
    }
    Ok(json!({"tenant": name, "file": out, "bytes": written?}))
}

/// One line a tenant; with their buckets where one has its own.
fn describe(tenants: &Value) -> String {
    let tenants = || tenants["data"].as_array().into_iter().flatten();
    let has_buckets = tenants().any(|tenant| tenant["bucket"].is_string());
    let mut fields = vec!["name", "plan", "separation", "status", "id"];
    if has_buckets {
        fields.insert(3, "bucket");
    }
    let rows: Vec<Vec<String>> =
        tenants().map(|tenant| fields.iter().map(|field| text(&tenant[*field])).collect()).collect();
    let headings: Vec<String> = fields.iter().map(|field| field.to_uppercase()).collect();
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    table_or("There are no tenants yet. `atelier tenant create NAME` makes one.", &headings, &rows)
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
        .map(|(kind, number)| format!("{} {number}", kind.replace('_', " ")))
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
