//! Erasing a tenant for good: its place for rows, its blobs, its keys, people and projects, and last the keys that its
//! data is sealed with. What stays are the books (usage), the trail of what was done to it, and a certificate.
//!
//! The decision is one transaction, after which the tenant's keys are worthless and its name is free. Every later step
//! may be done twice: a crash leaves it to the next start. The decision also goes into a file of its own, the erasure
//! log: a backup that is restored brings a tenant back, and the next start erases it again from there.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use atelier_access::Granted;
use atelier_access::right::{ListTenants, ManageTenant};
use atelier_domain::limits::{ERASURE_PAUSES, PAGE_ROWS_MAX};
use atelier_domain::{BucketName, TenantId, Timestamp};
use serde_json::json;

use crate::audit::Unrecorded;
use crate::audit::events::{DELETE_TENANT, ERASE_AGAIN};
use crate::error::StoreError;
use crate::key_cache::announce;
use crate::open::Store;
use crate::places::unless_away;
use crate::private_files::{self, sync_folder_of};
use crate::sql::{Database, Row, Transaction, values};

/// The erasure log, unless it is kept elsewhere.
pub(crate) const LOG_FILE: &str = "erasures.jsonl";

/// What is left of a tenant: that it was erased, and what of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasure {
    /// Who it was.
    pub tenant: TenantId,
    /// Who decided it, as [`atelier_access::Caller`] prints.
    pub requested_by: String,
    /// When it was decided.
    pub requested_at: Timestamp,
    /// When the last of it was gone; none while something may still be there.
    pub completed_at: Option<Timestamp>,
    /// How many of each kind were there: rows by table, `blobs` and `blob_bytes`.
    pub removed: BTreeMap<String, u64>,
}

const NOT_FOUND: StoreError = StoreError::NotFound { what: "tenant" };

/// The tables in a tenant's place, and how many rows of each are the tenant's.
const WORK: [(&str, &str); 7] = [
    ("sources", "SELECT COUNT(*) AS count FROM sources WHERE tenant_id = $1"),
    ("runs", "SELECT COUNT(*) AS count FROM runs WHERE tenant_id = $1"),
    ("run_events", "SELECT COUNT(*) AS count FROM run_events WHERE tenant_id = $1"),
    ("jobs", "SELECT COUNT(*) AS count FROM jobs WHERE tenant_id = $1"),
    ("versions", "SELECT COUNT(*) AS count FROM versions WHERE tenant_id = $1"),
    ("aliases", "SELECT COUNT(*) AS count FROM aliases WHERE tenant_id = $1"),
    ("audit", "SELECT COUNT(*) AS count FROM audit WHERE tenant_id = $1"),
];

/// What the control database holds about a tenant's people and machines: table, how many, and their removal, in an order
/// in which none refers to what is gone.
const PEOPLE: [(&str, &str, &str); 9] = [
    (
        "sign_in_codes",
        "SELECT COUNT(*) AS count FROM sign_in_codes WHERE tenant_id = $1",
        "DELETE FROM sign_in_codes WHERE tenant_id = $1",
    ),
    (
        "identities",
        "SELECT COUNT(*) AS count FROM identities WHERE tenant_id = $1",
        "DELETE FROM identities WHERE tenant_id = $1",
    ),
    (
        "sign_on",
        "SELECT COUNT(*) AS count FROM sign_on WHERE tenant_id = $1",
        "DELETE FROM sign_on WHERE tenant_id = $1",
    ),
    ("keys", "SELECT COUNT(*) AS count FROM keys WHERE tenant_id = $1", "DELETE FROM keys WHERE tenant_id = $1"),
    (
        "project_users",
        "SELECT COUNT(*) AS count FROM project_users WHERE tenant_id = $1",
        "DELETE FROM project_users WHERE tenant_id = $1",
    ),
    (
        "service_accounts",
        "SELECT COUNT(*) AS count FROM service_accounts WHERE tenant_id = $1",
        "DELETE FROM service_accounts WHERE tenant_id = $1",
    ),
    (
        "invites",
        "SELECT COUNT(*) AS count FROM invites WHERE tenant_id = $1",
        "DELETE FROM invites WHERE tenant_id = $1",
    ),
    ("users", "SELECT COUNT(*) AS count FROM users WHERE tenant_id = $1", "DELETE FROM users WHERE tenant_id = $1"),
    (
        "projects",
        "SELECT COUNT(*) AS count FROM projects WHERE tenant_id = $1",
        "DELETE FROM projects WHERE tenant_id = $1",
    ),
];

/// Tables of PostgreSQL's that tenants share and that hold, unsealed, what a tenant chose.
const PLAIN_TABLES: [&str; 8] = [
    "atelier.keys",
    "atelier.service_accounts",
    "atelier.invites",
    "atelier.users",
    "atelier.projects",
    "atelier.tenants",
    "atelier_tenants.runs",
    "atelier_tenants.versions",
];

impl Store {
    /// Erases the tenant: its keys are worthless at once and its name is free; then all that it had is removed, counted
    /// in the certificate that is the answer. The usage ledger keeps its rows, they are the operator's books, and so
    /// does the trail of what was done to the tenant.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when it is erased already. When something could not be removed, it is tried again and
    /// again, by this server and by the next start.
    pub async fn delete_tenant(&self, grant: &Granted<ManageTenant>) -> Result<Erasure, StoreError> {
        let (store, grant) = (self.clone(), grant.clone());
        // In a task of its own: whoever asked may go away, and what was decided is done.
        let erased = tokio::spawn(async move { store.delete_tenant_alone(&grant).await }).await;
        erased.map_err(|_| StoreError::ShuttingDown)?
    }

    async fn delete_tenant_alone(&self, grant: &Granted<ManageTenant>) -> Result<Erasure, StoreError> {
        let (tenant, now) = (grant.tenant(), self.now());
        let mut transaction = self.control_for(tenant).begin().await?;
        self.living_tenant(&mut transaction, tenant).await?;
        decide(&mut transaction, tenant, &grant.actor().to_string(), now).await?;
        let recorded = self.record_administration(&mut transaction, grant, DELETE_TENANT.of(tenant, json!({}))).await?;
        self.commit(transaction, recorded).await?;
        self.inner.keys.forget_all();
        let erased = self.erase(tenant).await;
        if erased.is_err() {
            self.erase_later(tenant);
        }
        erased
    }

    /// Goes on with an erasure that something stood in the way of, until it is done or the store is closed.
    fn erase_later(&self, tenant: TenantId) {
        let inner = Arc::downgrade(&self.inner);
        tokio::spawn(async move {
            let (mut pause, longest) = ERASURE_PAUSES;
            loop {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(longest);
                let Some(inner) = inner.upgrade() else { return };
                match (Self { inner }).erase(tenant).await {
                    Ok(_) => {
                        tracing::info!(%tenant, "erased what was still there");
                        return;
                    }
                    Err(StoreError::ShuttingDown) => return,
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(%tenant, error, "what was to be erased is still there");
                    }
                }
            }
        });
    }

    /// The certificates of erased tenants, newest first, older than that of `after` if there is one.
    ///
    /// # Errors
    /// What the database says.
    pub async fn erasures(
        &self,
        _grant: &Granted<ListTenants>,
        after: Option<TenantId>,
        limit: usize,
    ) -> Result<Vec<Erasure>, StoreError> {
        const SQL: &str = "SELECT tenant_id, requested_by, requested_at, removed, completed_at FROM erasures
            WHERE $1 = '' OR (requested_at, tenant_id) < (SELECT requested_at, tenant_id FROM erasures WHERE tenant_id = $1)
            ORDER BY requested_at DESC, tenant_id DESC LIMIT $2";
        let after = after.map(|tenant| tenant.to_string()).unwrap_or_default();
        let rows = self.control().fetch_all(SQL, values![after, limit.min(PAGE_ROWS_MAX)]).await?;
        rows.iter().map(erasure_of).collect()
    }

    /// Goes on with erasures that a crash cut short, and erases again whom a restored backup brought back.
    pub(crate) async fn finish_erasures(&self) -> Result<(), StoreError> {
        const CUT_SHORT: &str = "SELECT id FROM tenants WHERE deleted_at IS NOT NULL AND erased_at IS NULL";
        const ALIVE: &str = "SELECT id FROM tenants WHERE id = $1 AND deleted_at IS NULL";
        for row in self.control().fetch_all(CUT_SHORT, values![]).await? {
            let tenant = row.parsed("id")?;
            self.erase_now_or_later(tenant).await?;
        }
        for (tenant, bucket) in read_log(&self.inner.erasure_log)? {
            if self.control().fetch_optional(ALIVE, values![tenant]).await?.is_some() {
                let mut transaction = self.control().begin().await?;
                decide(&mut transaction, tenant, &Self::system().to_string(), self.now()).await?;
                let recorded = self.record_own(&mut transaction, ERASE_AGAIN.of(tenant, json!({}))).await?;
                self.commit(transaction, recorded).await?;
                self.erase_now_or_later(tenant).await?;
                tracing::warn!(%tenant, "erased again a tenant that was in a backup from before");
            } else {
                // Its rows were not restored; files may have been.
                self.inner.tenants.remove_litter(tenant)?;
                unless_away(tenant, self.inner.blobs.delete_all(tenant, bucket.as_ref()).await)?;
            }
        }
        Ok(())
    }

    /// A bucket that does not answer keeps nobody else from being served.
    async fn erase_now_or_later(&self, tenant: TenantId) -> Result<(), StoreError> {
        if unless_away(tenant, self.erase(tenant).await)?.is_none() {
            self.erase_later(tenant);
        }
        Ok(())
    }

    /// Removes what a tenant had, step by step.
    async fn erase(&self, tenant: TenantId) -> Result<Erasure, StoreError> {
        const FORGET: &str = "UPDATE tenants SET name = id, cache_salt = $2 WHERE id = $1";
        const ERASED: &str = "UPDATE tenants SET erased_at = $2 WHERE id = $1";
        const COMPLETE: &str = "UPDATE erasures SET completed_at = $2 WHERE tenant_id = $1 AND completed_at IS NULL";
        const READ: &str = "SELECT tenant_id, requested_by, requested_at, removed, completed_at FROM erasures
            WHERE tenant_id = $1";
        // A move would make places anew, and leave one that nothing names.
        let _still = self.without_moves().await;
        let bucket = self.bucket_of_erased(tenant).await?;
        append_log(&self.inner.erasure_log, tenant, bucket.as_ref())?;
        self.count(tenant).await?;
        self.inner.tenants.remove(tenant).await?;
        self.inner.blobs.delete_all(tenant, None).await?;
        let control = self.control_for(tenant);
        let no_salt = [0; 32];
        let mut transaction = control.begin().await?;
        for (_, _, remove) in PEOPLE {
            transaction.execute(remove, values![tenant]).await?;
        }
        transaction.execute(FORGET, values![tenant, no_salt.as_slice()]).await?;
        transaction.commit(Unrecorded::Place.permit()).await?;
        self.rewrite_plain_tables(tenant).await;
        // Empties the log of the control database too, where a file holds it.
        self.destroy_data_keys(tenant).await?;
        let now = self.now();
        let mut transaction = control.begin().await?;
        transaction.execute(ERASED, values![tenant, now]).await?;
        transaction.execute(COMPLETE, values![tenant, now]).await?;
        transaction.commit(Unrecorded::Place.permit()).await?;
        let row = control.fetch_optional(READ, values![tenant]).await?.ok_or(NOT_FOUND)?;
        erasure_of(&row)
    }

    /// On PostgreSQL a row that is gone stays in its table's file until that is written anew. What is sealed may stay, its
    /// key is destroyed; tables that hold names and suffixes as they are, are written anew, each locked for as long as
    /// that takes. Where the owner is not known, or a table stays busy, that is left to the operator.
    async fn rewrite_plain_tables(&self, tenant: TenantId) {
        let Some(side) = &self.inner.server else { return };
        if let Err(error) = side.server.rewrite_tables(&PLAIN_TABLES).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(%tenant, error, "removed rows stay in tables' files until the owner says VACUUM (FULL)");
        }
        if !side.server.knows_owner() {
            tracing::warn!(%tenant, "removed rows stay in tables' files until the owner says VACUUM (FULL)");
        }
    }

    async fn bucket_of_erased(&self, tenant: TenantId) -> Result<Option<BucketName>, StoreError> {
        const SQL: &str = "SELECT bucket FROM tenants WHERE id = $1";
        let row = self.control_for(tenant).fetch_optional(SQL, values![tenant]).await?.ok_or(NOT_FOUND)?;
        row.optional_parsed("bucket")
    }

    /// Counts what there is, once, before the first of it is removed.
    async fn count(&self, tenant: TenantId) -> Result<(), StoreError> {
        const IS_COUNTED: &str = "SELECT tenant_id FROM erasures WHERE tenant_id = $1 AND removed IS NOT NULL";
        const BEGUN: &str = "INSERT INTO erasures (tenant_id, requested_by, requested_at) VALUES ($1, $2, $3)
            ON CONFLICT DO NOTHING";
        const SET: &str = "UPDATE erasures SET removed = $2 WHERE tenant_id = $1 AND removed IS NULL";
        let control = self.control_for(tenant);
        if control.fetch_optional(IS_COUNTED, values![tenant]).await?.is_some() {
            return Ok(());
        }
        let mut removed = BTreeMap::new();
        if let Some(place) = self.inner.tenants.of_erased(tenant).await? {
            let counted = count_work(&place, tenant).await;
            place.close().await;
            match counted {
                Ok(counted) => removed.extend(counted),
                // A place that is damaged, or half removed by a version that did not count, goes uncounted.
                Err(error) => {
                    tracing::warn!(%tenant, error = &error as &dyn std::error::Error, "rows go uncounted");
                }
            }
        }
        for (table, count, _) in PEOPLE {
            let row = control.fetch_optional(count, values![tenant]).await?.ok_or(NOT_FOUND)?;
            removed.insert(table.to_owned(), row.count("count")?);
        }
        let (blobs, bytes) = self.inner.blobs.sum_of(tenant).await?;
        removed.insert("blobs".to_owned(), blobs);
        removed.insert("blob_bytes".to_owned(), bytes);
        let mut transaction = control.begin().await?;
        let (by, now) = (Self::system().to_string(), self.now());
        transaction.execute(BEGUN, values![tenant, by, now]).await?;
        transaction.execute(SET, values![tenant, &json!(removed)]).await?;
        transaction.commit(Unrecorded::Place.permit()).await
    }
}

async fn count_work(place: &Database, tenant: TenantId) -> Result<BTreeMap<String, u64>, StoreError> {
    let mut counted = BTreeMap::new();
    for (table, count) in WORK {
        let row = place.fetch_optional(count, values![tenant]).await?.ok_or(NOT_FOUND)?;
        counted.insert(table.to_owned(), row.count("count")?);
    }
    Ok(counted)
}

/// From here on the tenant is no more, whatever happens.
async fn decide(transaction: &mut Transaction, tenant: TenantId, by: &str, now: Timestamp) -> Result<(), StoreError> {
    const DELETE: &str = "UPDATE tenants SET deleted_at = $2 WHERE id = $1 AND deleted_at IS NULL";
    const REVOKE: &str = "UPDATE keys SET revoked_at = $2 WHERE tenant_id = $1 AND revoked_at IS NULL";
    // A certificate that a restored backup lacks is written anew; one that is there goes on to be true.
    const CERTIFY: &str = "INSERT INTO erasures (tenant_id, requested_by, requested_at) VALUES ($1, $2, $3)
        ON CONFLICT DO NOTHING";
    transaction.execute(DELETE, values![tenant, now]).await?;
    transaction.execute(REVOKE, values![tenant, now]).await?;
    announce(transaction).await?;
    transaction.execute("DELETE FROM job_hints WHERE tenant_id = $1", values![tenant]).await?;
    transaction.execute(CERTIFY, values![tenant, by, now]).await.map(|_| ())
}

/// Adds a tenant to the log, unless it is there, on disk before this returns.
fn append_log(path: &Path, tenant: TenantId, bucket: Option<&BucketName>) -> Result<(), StoreError> {
    if read_log(path)?.contains_key(&tenant) {
        return Ok(());
    }
    let failed = |error| StoreError::io(format!("write {}", path.display()), error);
    let mut file = private_files::open(path).map_err(failed)?;
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(failed)?;
    // What a crash cut short goes first.
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1) as u64;
    file.set_len(whole).and_then(|()| file.seek(SeekFrom::Start(whole))).map_err(failed)?;
    let mut named = json!({"tenant": tenant.to_string()});
    if let Some(bucket) = bucket {
        named["bucket"] = bucket.as_str().into();
    }
    let line = format!("{named}\n");
    file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    sync_folder_of(path).map_err(failed)
}

/// Whom the log names, with the bucket that each had of its own. A last line that a crash cut short names nobody.
fn read_log(path: &Path) -> Result<BTreeMap<TenantId, Option<BucketName>>, StoreError> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        read => read.map_err(|error| StoreError::io(format!("read {}", path.display()), error))?,
    };
    let mut tenants = BTreeMap::new();
    let lines = text.split_inclusive('\n').enumerate();
    for (at, line) in lines {
        let parsed: Option<serde_json::Value> = serde_json::from_str(line.trim()).ok();
        let tenant = parsed.as_ref().and_then(|line| line["tenant"].as_str()).and_then(|tenant| tenant.parse().ok());
        match tenant {
            Some(tenant) => {
                let bucket =
                    parsed.as_ref().and_then(|line| line["bucket"].as_str()).and_then(|name| name.parse().ok());
                tenants.insert(tenant, bucket);
            }
            None if line.trim().is_empty() || !line.ends_with('\n') => {}
            None => return Err(StoreError::corrupt(format!("line {} of {}", at + 1, path.display()))),
        }
    }
    Ok(tenants)
}

fn erasure_of(row: &Row) -> Result<Erasure, StoreError> {
    let mut removed = BTreeMap::new();
    if let Some(counted) = row.optional_text("removed")? {
        let counted: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&counted).map_err(|_| StoreError::corrupt("a certificate of erasure"))?;
        removed.extend(counted.into_iter().filter_map(|(kind, count)| Some((kind, count.as_u64()?))));
    }
    Ok(Erasure {
        tenant: row.parsed("tenant_id")?,
        requested_by: row.text("requested_by")?,
        requested_at: row.time("requested_at")?,
        completed_at: row.optional_time("completed_at")?,
        removed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_outlives_a_torn_line_and_refuses_nonsense() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOG_FILE);
        let tenant = |byte| TenantId::generate(Timestamp::from_seconds(1), [byte; 10]);
        assert!(read_log(&path).unwrap().is_empty());
        let bucket: BucketName = "acme-code".parse().unwrap();
        append_log(&path, tenant(1), None).unwrap();
        append_log(&path, tenant(2), Some(&bucket)).unwrap();
        append_log(&path, tenant(1), None).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2);
        fs::write(&path, format!("{text}{{\"tenant\": \"org_0")).unwrap();
        assert_eq!(read_log(&path).unwrap(), BTreeMap::from([(tenant(1), None), (tenant(2), Some(bucket))]));
        append_log(&path, tenant(3), None).unwrap();
        assert_eq!(read_log(&path).unwrap().len(), 3);
        fs::write(&path, format!("nonsense\n{text}")).unwrap();
        assert!(matches!(read_log(&path), Err(StoreError::Corrupt { .. })));
    }

    /// A worker that is late, or a client that sends slowly: it had the keys before.
    #[tokio::test]
    async fn nothing_is_put_where_an_erased_tenant_was() {
        let folder = tempfile::tempdir().unwrap();
        let (store, tenant, operator) = crate::rotation::tests::with_tenant_and_operator(folder.path()).await;
        let keys = store.data_keys(tenant).await.unwrap();
        let source = atelier_domain::SourceId::generate(Timestamp::from_seconds(1), [1; 10]);
        store.inner.blobs.put_source(&keys, source, bytes::Bytes::from_static(b"before")).await.unwrap();
        store.delete_tenant(&operator.grant(ManageTenant { tenant }).unwrap()).await.unwrap();
        let late = store.inner.blobs.put_source(&keys, source, bytes::Bytes::from_static(b"late")).await;
        assert!(matches!(late, Err(StoreError::NotFound { .. })), "{late:?}");
        let prefix = folder.path().join("blobs").join(tenant.hex());
        assert!(!prefix.exists() || fs::read_dir(prefix).unwrap().next().is_none());
    }
}
