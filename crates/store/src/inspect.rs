//! The self-check from outside: what `atelier doctor` asks, beside a server that runs or without one.

use std::path::Path;

use atelier_domain::{Separation, TenantId};

use crate::error::StoreError;
use crate::migrate;
use crate::open::{CONTROL_FILE, DatabaseOptions, TENANTS_FOLDER, check_control, check_control_file};
use crate::places::{self, CONTROL_SCHEMA, TENANTS_SCHEMA};
use crate::root_key::{self, RootKeyOptions};
use crate::sql::{Database, Scope, Server, values};
use crate::walls::{self, WallFinding};

/// Looks whether the walls between tenants stand, and changes nothing. None where there is no database yet.
///
/// # Errors
/// What the database says when it is asked.
pub async fn inspect(folder: &Path, database: &DatabaseOptions) -> Result<Option<Vec<WallFinding>>, StoreError> {
    match database {
        DatabaseOptions::Files => inspect_files(folder).await,
        DatabaseOptions::Postgres(urls) => {
            let server = Server::connect(urls).await?;
            let findings = inspect_server(&server).await;
            server.close().await;
            findings.map(Some)
        }
    }
}

/// Whether the root key is there and the one that the data is sealed with: where it is. None where nothing is sealed yet.
///
/// # Errors
/// [`StoreError::RootKeyMissing`], [`StoreError::RootKeyWrong`], [`StoreError::RootKeyMalformed`], and what the database
/// says when it is asked.
pub async fn inspect_root_key(
    folder: &Path,
    database: &DatabaseOptions,
    root_key: &RootKeyOptions,
) -> Result<Option<String>, StoreError> {
    match database {
        DatabaseOptions::Files => {
            let file = folder.join(CONTROL_FILE);
            if !file.exists() {
                return Ok(None);
            }
            let control = Database::open_sqlite(&file, false, 1, Scope::Control).await?;
            let found = inspect_fingerprint(&control, folder, root_key).await;
            control.close().await;
            found
        }
        DatabaseOptions::Postgres(urls) => {
            let server = Server::connect(urls).await?;
            let control = server.schema(CONTROL_SCHEMA, Scope::Control);
            let found = inspect_fingerprint(&control, folder, root_key).await;
            server.close().await;
            found
        }
    }
}

async fn inspect_fingerprint(
    control: &Database,
    folder: &Path,
    root_key: &RootKeyOptions,
) -> Result<Option<String>, StoreError> {
    if migrate::has_data_keys(control).await? { root_key::check(control, folder, root_key).await } else { Ok(None) }
}

async fn inspect_files(folder: &Path) -> Result<Option<Vec<WallFinding>>, StoreError> {
    let file = folder.join(CONTROL_FILE);
    check_control_file(folder)?;
    if !file.exists() {
        return Ok(None);
    }
    let control = Database::open_sqlite(&file, false, 1, Scope::Control).await?;
    check_control(&control, folder).await?;
    let mut findings = walls::check_file(&control, &file.display().to_string(), migrate::CONTROL.sqlite).await?;
    for (tenant, _) in living(&control).await? {
        findings.extend(places::inspect_file(&folder.join(TENANTS_FOLDER), tenant).await?);
    }
    control.close().await;
    Ok(Some(findings))
}

async fn inspect_server(server: &Server) -> Result<Vec<WallFinding>, StoreError> {
    let control = server.schema(CONTROL_SCHEMA, Scope::Control);
    let tenants = server.schema(TENANTS_SCHEMA, Scope::Control);
    let mut findings = walls::check_schema(&control, CONTROL_SCHEMA, migrate::CONTROL.postgres).await?;
    findings.extend(walls::check_schema(&tenants, TENANTS_SCHEMA, migrate::TENANT.postgres).await?);
    if findings.is_empty() {
        for (tenant, separation) in living(&control).await? {
            findings.extend(places::inspect_on_server(server, tenant, separation).await?);
        }
    }
    Ok(findings)
}

async fn living(control: &Database) -> Result<Vec<(TenantId, Separation)>, StoreError> {
    const SQL: &str = "SELECT id, separation FROM tenants WHERE deleted_at IS NULL ORDER BY id";
    let rows = control.fetch_all(SQL, values![]).await?;
    rows.iter().map(|row| Ok((row.parsed("id")?, row.parsed("separation")?))).collect()
}
