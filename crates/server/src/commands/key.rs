//! `atelier key`: create, list, revoke.

use anyhow::Result;
use atelier_domain::{KeyId, limits};
use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::TenantArg;
use crate::client::{Client, Place};
use crate::output::{Output, table, text};

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

/// The longest that a key is made for.
const DAYS_MAX: u64 = limits::KEY_LIFETIME_MAX.as_secs() / SECONDS_PER_DAY;

/// What to do with keys.
#[derive(Debug, Clone, Subcommand)]
pub enum KeyCommand {
    /// Make a key; it is shown only once.
    #[command(
        after_help = "Examples:\n  atelier key create --tenant acme --name laptop\n  atelier key create --tenant acme --role service --scope learn --days 30"
    )]
    Create(CreateKeyArgs),
    /// List a tenant's keys.
    #[command(after_help = "Example:\n  atelier key list --tenant acme")]
    List(TenantArg),
    /// Make a key worthless, within a second and also for what is open.
    #[command(after_help = "Example:\n  atelier key revoke --tenant acme key_0190d1f2a3b47c5d8e9f001122334455")]
    Revoke(RevokeKeyArgs),
}

/// What key to make.
#[derive(Debug, Clone, Args)]
pub struct CreateKeyArgs {
    /// For which tenant.
    #[command(flatten)]
    pub tenant: TenantArg,
    /// What to call it.
    #[arg(long, value_name = "TEXT")]
    pub name: Option<String>,
    /// What it may be.
    #[arg(long, value_enum, default_value_t = RoleArg::Member)]
    pub role: RoleArg,
    /// Limit it to this part of the role's rights: complete, read, learn, usage, audit, manage or delegate; may be
    /// repeated.
    #[arg(long = "scope", value_name = "SCOPE")]
    pub scopes: Vec<String>,
    /// Days after which it ends by itself, a year at most; it does not when absent.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=DAYS_MAX))]
    pub days: Option<u64>,
}

/// What a key may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// Manages the tenant.
    Admin,
    /// Uses the tenant's models.
    Member,
    /// A machine: completes, and gives code to learn from.
    Service,
    /// Looks and changes nothing.
    Reader,
}

impl RoleArg {
    /// The role's name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Service => "service",
            Self::Reader => "reader",
        }
    }
}

/// Which key to revoke.
#[derive(Debug, Clone, Args)]
pub struct RevokeKeyArgs {
    /// For which tenant.
    #[command(flatten)]
    pub tenant: TenantArg,
    /// The key's id, `key_…`.
    #[arg(value_name = "KEY")]
    pub key: KeyId,
}

/// Does what was asked with keys.
pub async fn run(place: &Place, command: KeyCommand, output: Output) -> Result<()> {
    let client = Client::find(place)?;
    match command {
        KeyCommand::Create(args) => {
            let client = client.for_tenant(args.tenant.name.as_deref());
            let mut body = json!({"name": args.name, "role": args.role.name()});
            if !args.scopes.is_empty() {
                body["scopes"] = json!(args.scopes);
            }
            if let Some(days) = args.days {
                body["expires_in_seconds"] = json!(days * SECONDS_PER_DAY);
            }
            let key = client.send(Method::POST, "/v1/keys", &body).await?;
            output.result(&key, || format!("{}\nKey (shown only now): {}", describe(&key), text(&key["value"])))
        }
        KeyCommand::List(tenant) => {
            let keys = list(&client.for_tenant(tenant.name.as_deref())).await?;
            output.result(&keys, || {
                let rows: Vec<Vec<String>> = keys["data"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|key| vec![text(&key["id"]), name(key), text(&key["role"]), scopes(key), state(key)])
                    .collect();
                table(&["ID", "NAME", "ROLE", "SCOPES", "STATE"], &rows)
            })
        }
        KeyCommand::Revoke(args) => {
            let client = client.for_tenant(args.tenant.name.as_deref());
            let revoked = client.send(Method::DELETE, &format!("/v1/keys/{}", args.key), &json!({})).await?;
            output.result(&revoked, || format!("Key {} is revoked; what was open under it is cut.", args.key))
        }
    }
}

/// All keys of a tenant, whatever the server's page holds.
async fn list(client: &Client) -> Result<Value> {
    let mut all: Vec<Value> = Vec::new();
    loop {
        let after = all.last().map(|key| format!("?after={}", text(&key["id"]))).unwrap_or_default();
        let mut page = client.get(&format!("/v1/keys{after}")).await?;
        let more = page["has_more"] == json!(true);
        if let Some(keys) = page["data"].as_array_mut() {
            all.append(keys);
        }
        if !more {
            return Ok(json!({"object": "list", "data": all, "has_more": false}));
        }
    }
}

fn describe(key: &Value) -> String {
    format!("Created key {} with the role {}, scopes: {}.", text(&key["id"]), text(&key["role"]), scopes(key))
}

/// What a key is called; one that nobody named, by what it came from.
fn name(key: &Value) -> String {
    match (key["name"].as_str(), key["purpose"].as_str()) {
        (None, Some(purpose @ ("session" | "login"))) => format!("({purpose})"),
        _ => text(&key["name"]),
    }
}

fn scopes(key: &Value) -> String {
    match key["scopes"].as_array() {
        None => "all of the role".to_owned(),
        Some(scopes) => scopes.iter().map(text).collect::<Vec<_>>().join(", "),
    }
}

fn state(key: &Value) -> String {
    match (&key["revoked_at"], key["expires_at"].as_i64()) {
        (Value::Null, None) => "living".to_owned(),
        (Value::Null, Some(end)) => {
            let word = if end > Timestamp::now().as_second() { "until" } else { "ended" };
            format!("{word} {}", Timestamp::from_second(end).map(|at| at.to_string()).unwrap_or_default())
        }
        _ => "revoked".to_owned(),
    }
}
