//! `atelier audit`: list what was done, and verify that the list is what was written.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::cli::TenantArg;
use crate::client::{Client, Place};
use crate::output::{Output, count, table_or, text};

/// Most events of one page of the server.
const PAGE: usize = 100;
/// What a tenant's trail is read by, or the installation's.
const TENANTS: &str = "/v1/organization/audit_logs";
const INSTALLATIONS: &str = "/v1/operator/audit_logs";

/// What to do with the audit trail.
#[derive(Debug, Clone, Subcommand)]
pub enum AuditCommand {
    /// List what was done, newest first: to one tenant, or to the installation and its tenants.
    #[command(
        after_help = "Examples:\n  atelier audit list --since 24h\n  atelier audit list --tenant acme --type api_key.created --json"
    )]
    List(ListAuditArgs),
    /// Check that no event was changed, moved, removed or put in; fails when one was.
    #[command(after_help = "Examples:\n  atelier audit verify\n  atelier audit verify --tenant acme")]
    Verify(VerifyAuditArgs),
}

/// What to list.
#[derive(Debug, Clone, Args)]
pub struct ListAuditArgs {
    /// For which tenant; with the operator's key and without this, what was done to the installation and its tenants.
    #[command(flatten)]
    pub tenant: TenantArg,
    /// Only events since then: a date as 2026-11-27, a time as 2026-11-27T10:00:00Z, or how long ago, as 90m, 24h or 7d.
    #[arg(long, value_name = "WHEN", value_parser = since)]
    pub since: Option<i64>,
    /// Only events of this type, such as api_key.created; may be repeated.
    #[arg(long = "type", value_name = "TYPE")]
    pub types: Vec<String>,
    /// Only events by this key, person or machine; may be repeated.
    #[arg(long = "actor", value_name = "ID")]
    pub actors: Vec<String>,
    /// At most so many events.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: usize,
}

/// What to check.
#[derive(Debug, Clone, Args)]
pub struct VerifyAuditArgs {
    /// For which tenant; with the operator's key and without this, every trail there is.
    #[command(flatten)]
    pub tenant: TenantArg,
}

/// Does what was asked with the audit trail.
pub async fn run(place: &Place, command: AuditCommand, output: Output) -> Result<()> {
    let client = Client::find(place)?;
    match command {
        AuditCommand::List(args) => {
            let events = list(&client.for_tenant(args.tenant.name.as_deref()), &args).await?;
            output.result(&events, || describe(&events, args.tenant.name.is_none()))
        }
        AuditCommand::Verify(args) => {
            let found = verify(&client.for_tenant(args.tenant.name.as_deref())).await?;
            output.result(&found, || lines(&found).join("\n"))?;
            if found["whole"] != json!(true) {
                bail!("The audit trail is not what was written; see above.");
            }
            Ok(())
        }
    }
}

/// What a check of all trails that the client may ask about found.
pub async fn verify(client: &Client) -> Result<Value> {
    client.get(&format!("{}/verification", path(client))).await
}

/// One line for each chain.
pub fn lines(found: &Value) -> Vec<String> {
    let chains = found["chains"].as_array().into_iter().flatten();
    chains.map(line).collect()
}

fn line(chain: &Value) -> String {
    let whose = chain["organization_id"].as_str().map(|id| format!(" of {id}")).unwrap_or_default();
    let name = format!("{}{whose}", text(&chain["chain"]));
    let broken = &chain["broken"];
    if broken.is_null() {
        return format!(
            "{name}: {}, whole, {}",
            count(chain["events"].as_u64().unwrap_or(0), "event"),
            text(&chain["hash"])
        );
    }
    let event = broken["event_id"].as_str().map(|id| format!(" ({id})")).unwrap_or_default();
    format!("{name}: BROKEN at event {}{event}: {}", broken["sequence"], text(&broken["reason"]))
}

/// The newest events, page by page, up to the limit.
async fn list(client: &Client, args: &ListAuditArgs) -> Result<Value> {
    let mut all: Vec<Value> = Vec::new();
    let mut has_more = true;
    while has_more && all.len() < args.limit {
        let mut query = vec![format!("limit={}", PAGE.min(args.limit - all.len()))];
        query.extend(args.since.map(|since| format!("effective_at[gte]={since}")));
        query.extend(args.types.iter().map(|kind| format!("event_types={}", encoded(kind))));
        query.extend(args.actors.iter().map(|actor| format!("actor_ids={}", encoded(actor))));
        query.extend(all.last().map(|event| format!("after={}", text(&event["id"]))));
        let mut page = client.get(&format!("{}?{}", path(client), query.join("&"))).await?;
        has_more = page["has_more"] == json!(true);
        if let Some(events) = page["data"].as_array_mut() {
            all.append(events);
        }
    }
    Ok(json!({"object": "list", "data": all, "has_more": has_more}))
}

/// A tenant's trail, unless an operator asks without saying for whom.
fn path(client: &Client) -> &'static str {
    if client.is_of_the_installation() { INSTALLATIONS } else { TENANTS }
}

/// Text as it goes into a query: nothing of it may end the value.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// A line an event; whose it is only where that differs.
fn describe(events: &Value, of_all: bool) -> String {
    let events = events["data"].as_array().into_iter().flatten();
    let rows: Vec<Vec<String>> = events
        .map(|event| {
            let at = event["effective_at"].as_i64().and_then(|second| Timestamp::from_second(second).ok());
            let kind = text(&event["type"]);
            let mut row = vec![at.map(|at| at.to_string()).unwrap_or_default(), kind.clone(), actor(&event["actor"])];
            row.push(text(&event[kind.as_str()]["id"]));
            if of_all {
                row.push(text(&event["organization_id"]));
            }
            row
        })
        .collect();
    let headings = ["TIME", "TYPE", "ACTOR", "SUBJECT", "ORGANIZATION"];
    table_or("No such event.", &headings[..if of_all { 5 } else { 4 }], &rows)
}

fn actor(actor: &Value) -> String {
    let key = actor["api_key"]["id"].as_str().map(|id| format!(" {id}")).unwrap_or_default();
    let acting = actor["acting_for"].as_str().map(|_| " in its place").unwrap_or_default();
    format!("{}{key}{acting}", text(&actor["role"]))
}

/// A date, a time or how long ago → unix seconds.
fn since(when: &str) -> Result<i64> {
    if let Ok(date) = when.parse::<Date>()
        && when.len() == "2026-11-27".len()
    {
        return Ok(date.to_zoned(TimeZone::UTC)?.timestamp().as_second());
    }
    if let Ok(at) = when.parse::<Timestamp>() {
        return Ok(at.as_second());
    }
    let ago = ago(when).ok_or_else(|| {
        anyhow!("it is a date as 2026-11-27, a time as 2026-11-27T10:00:00Z, or how long ago, as 90m, 24h or 7d")
    })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(i64::try_from(now.saturating_sub(ago).as_secs())?)
}

fn ago(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return None,
    };
    Some(Duration::from_secs(number.checked_mul(seconds)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(since("2026-11-27").unwrap(), 1_795_737_600);
        assert_eq!(since("2026-11-27T10:00:00Z").unwrap(), 1_795_737_600 + 36_000);
        assert_eq!(since("2026-11-27T10:00:00+02:00").unwrap(), 1_795_737_600 + 28_800);
        assert_eq!(ago("90m"), Some(Duration::from_secs(5_400)));
        assert_eq!(ago("7d"), Some(Duration::from_secs(604_800)));
        for bad in ["", "d", "-1d", "1w", "é", "yesterday", "9223372036854775807d", "2026-13-01"] {
            assert!(since(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_filter_stays_inside_its_value() {
        assert_eq!(encoded("api_key.created"), "api_key.created");
        assert_eq!(encoded("a&limit=1"), "a%26limit%3D1");
    }
}
