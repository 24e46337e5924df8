//! `atelier doctor`: what could be wrong, looked at in order, each finding with what to do.

use std::path::Path;

use anyhow::{Result, bail};
use atelier_platform::{Tier, inspect_base, inspect_root_key, inspect_walls};
use serde_json::{Value, json};

use crate::cli::{DatabaseArgs, DoctorArgs, RootKeyArgs};
use crate::client::{Client, OPERATOR_KEY_FILE, Place, Refusal};
use crate::commands::audit;
use crate::output::{Output, count, line_of};
use crate::serve::{database_options, find_base, root_key_options};

/// Free disk space under which a server is soon in trouble, bytes.
const DISK_FREE_BYTES_MIN: u64 = 1 << 30;

struct Check {
    what: &'static str,
    good: bool,
    says: String,
}

/// Checks.
pub async fn run(place: &Place, args: DoctorArgs, output: Output) -> Result<()> {
    let data = place.data.as_path();
    let mut checks = vec![kernels(), base(args.base.as_deref())];
    checks.extend(folder(data));
    checks.extend(walls(data, &args.database).await);
    checks.push(root_key(data, &args.database, &args.root_key).await);
    let server = server(place).await;
    let answers = server.good;
    checks.push(server);
    if answers {
        checks.extend(trails(place).await);
    }
    let good = checks.iter().all(|check| check.good);
    let list: Vec<Value> =
        checks.iter().map(|check| json!({"check": check.what, "ok": check.good, "says": check.says})).collect();
    output.result(&json!({"ok": good, "checks": list}), || {
        let line =
            |check: &Check| format!("{} {:<12} {}", if check.good { "ok  " } else { "MEND" }, check.what, check.says);
        checks.iter().map(line).collect::<Vec<_>>().join("\n")
    })?;
    if !good {
        bail!("Something needs mending; see above.");
    }
    Ok(())
}

fn kernels() -> Check {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let tiers: Vec<String> = Tier::all_available().iter().map(ToString::to_string).collect();
    Check {
        what: "kernels",
        good: true,
        says: format!("{cores} cores; instruction sets here: {}; used: {}", tiers.join(", "), Tier::detect()),
    }
}

fn base(told: Option<&Path>) -> Check {
    let found = find_base(told).map_err(|error| line_of(error.as_ref())).and_then(|folder| {
        inspect_base(&folder).map(|says| format!("{}: {says}", folder.display())).map_err(|error| error.to_string())
    });
    let good = found.is_ok();
    Check { what: "base model", good, says: found.unwrap_or_else(|says| says) }
}

fn folder(data: &Path) -> Vec<Check> {
    if !data.exists() {
        return vec![Check {
            what: "data folder",
            good: true,
            says: format!("{} is not there yet; `atelier serve` creates it", data.display()),
        }];
    }
    let key = data.join(OPERATOR_KEY_FILE);
    let key_check = match is_private(&key) {
        Some(true) => Check { what: "operator key", good: true, says: format!("{}, private", key.display()) },
        Some(false) => Check {
            what: "operator key",
            good: false,
            says: format!("others can read {0}. Run: chmod 600 {0}", key.display()),
        },
        None => Check {
            what: "operator key",
            good: true,
            says: format!("{} is not there; set ATELIER_KEY for the commands", key.display()),
        },
    };
    vec![disk(data), key_check]
}

/// The same check that keeps a server from starting, a line for each finding.
async fn walls(data: &Path, database: &DatabaseArgs) -> Vec<Check> {
    let what = "walls";
    let check = |good, says| vec![Check { what, good, says }];
    match inspect_walls(data, &database_options(database)).await {
        Ok(None) => check(true, "there is no database yet".to_owned()),
        Ok(Some(findings)) if findings.is_empty() => {
            check(true, "tenants are held apart as the schema says".to_owned())
        }
        Ok(Some(findings)) => findings.into_iter().map(|says| Check { what, good: false, says }).collect(),
        Err(error) => check(false, format!("cannot look: {}", line_of(&error))),
    }
}

/// Whether the data can be read at the next start.
async fn root_key(data: &Path, database: &DatabaseArgs, args: &RootKeyArgs) -> Check {
    let check = |good, says| Check { what: "root key", good, says };
    let options = match root_key_options(args) {
        Ok(options) => options,
        Err(error) => return check(false, line_of(error.as_ref())),
    };
    match inspect_root_key(data, &database_options(database), &options).await {
        Ok(None) => check(true, "nothing is sealed yet; the first start makes it".to_owned()),
        Ok(Some(place)) => match is_private(Path::new(&place)) {
            Some(false) => check(false, format!("others can read {place}. Run: chmod 600 {place}")),
            Some(true) | None => {
                check(true, format!("{place} is what the data is sealed with; keep a copy apart from the data"))
            }
        },
        Err(error) => check(false, line_of(&error)),
    }
}

/// Whether only its owner can read a file; none where there is no such file.
fn is_private(file: &Path) -> Option<bool> {
    let metadata = std::fs::metadata(file).ok()?;
    Some(std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 == 0)
}

/// Whether the audit trail is what was written, where a server runs that can say so: a line, or one for each break.
async fn trails(place: &Place) -> Vec<Check> {
    let what = "audit trail";
    let Ok(client) = Client::find(place) else { return Vec::new() };
    let found = match audit::verify(&client).await {
        Ok(found) => found,
        Err(error) => {
            return vec![Check { what, good: false, says: format!("cannot look: {}", line_of(error.as_ref())) }];
        }
    };
    let chains = found["chains"].as_array().map_or(0, Vec::len);
    if found["whole"] == json!(true) {
        let events = count(found["events"].as_u64().unwrap_or(0), "event");
        let says = format!("{events} in {}: all as written", count(chains as u64, "chain"));
        return vec![Check { what, good: true, says }];
    }
    let broken = audit::lines(&found).into_iter().filter(|line| line.contains("BROKEN"));
    broken.map(|says| Check { what, good: false, says }).collect()
}

fn disk(data: &Path) -> Check {
    let free = rustix::fs::statvfs(data).map(|stat| stat.f_bavail * stat.f_frsize);
    match free {
        Ok(free) if free >= DISK_FREE_BYTES_MIN => {
            Check { what: "disk", good: true, says: format!("{} MiB free", free >> 20) }
        }
        Ok(free) => Check {
            what: "disk",
            good: false,
            says: format!(
                "only {} MiB free where {} lies. Make room: a full disk stops learning and metering.",
                free >> 20,
                data.display()
            ),
        },
        Err(error) => Check { what: "disk", good: false, says: format!("cannot look: {error}") },
    }
}

async fn server(place: &Place) -> Check {
    let check = |good, says| Check { what: "server", good, says };
    let data = place.data.display();
    if !place.names_a_server() {
        return check(true, format!("none runs on {data}; start one with `atelier serve --data {data}`"));
    }
    let client = match Client::find(place) {
        Ok(client) => client,
        Err(error) => return check(false, line_of(error.as_ref())),
    };
    if let Err(error) = client.get("/readyz").await {
        return check(false, line_of(error.as_ref()));
    }
    match client.get("/v1/tenants").await {
        Err(error) if !is_key_known(&error) => {
            check(false, format!("{} is ready, but: {}", client.url(), line_of(error.as_ref())))
        }
        Ok(_) | Err(_) => check(true, format!("{} is ready and knows the key", client.url())),
    }
}

/// A tenant's key lists no tenants, and is a good key all the same.
fn is_key_known(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<Refusal>()
        .is_some_and(|refusal| refusal.status == 403 && refusal.code != "organization_suspended")
}
