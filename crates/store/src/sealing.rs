//! Bringing stored data under a tenant's newest key: what a version before encryption left plain, and what older
//! generations sealed.
//!
//! It may be cut short at any moment and begun again: what is sealed with the newest key is known by opening it, and is
//! left alone. Only when all is done does the key say so, and then nothing plain is ever taken for a tenant's own again.

use std::sync::Arc;

use atelier_domain::limits::SEALING_ROWS_MAX;
use atelier_domain::{Digest, RunId, SourceId, TenantId, VersionNumber};

use crate::audit::Unrecorded;
use crate::blobs::Resealed;
use crate::data_keys::{self, DataKeys, NewGeneration, SealingState};
use crate::error::StoreError;
use crate::open::Store;
use crate::places::{unless_away, unless_damaged};
use crate::runs;
use crate::sign_on;
use crate::sources;
use crate::sql::{Database, Row, Transaction, values};
use crate::versions;
use atelier_seal::Bound;

#[cfg(test)]
mod tests;

/// How much of a tenant's data was looked at.
#[derive(Debug, Default)]
struct Tally {
    sealed: u64,
    damaged: u64,
}

/// What is to be written in the place of a stored text.
enum Found {
    /// It is sealed with the newest key.
    Sealed,
    /// It was not, and now reads so.
    Resealed(String),
    /// It opens with no key, and may not be plain: it is left as it is.
    Damaged,
}

impl Store {
    /// Makes keys for tenants of a version before encryption and seals their data, and goes on where that was cut
    /// short.
    ///
    /// # Errors
    /// [`StoreError::OthersAtWork`] when there is something to do and other servers are there, which might write
    /// meanwhile.
    pub(crate) async fn seal_what_is_plain(&self, is_alone: bool) -> Result<(), StoreError> {
        const UNSEALED: &str = "SELECT id FROM tenants WHERE deleted_at IS NULL AND (
            NOT EXISTS (SELECT 1 FROM data_keys WHERE tenant_id = tenants.id)
            OR EXISTS (SELECT 1 FROM data_keys WHERE tenant_id = tenants.id AND state = $1 AND wrapped IS NOT NULL))";
        let state = SealingState::Sealing.as_str();
        let unsealed = self.control().fetch_all(UNSEALED, values![state]).await?;
        if !unsealed.is_empty() && !is_alone {
            return Err(StoreError::OthersAtWork);
        }
        for row in unsealed {
            let tenant = row.parsed("id")?;
            self.make_missing_key(tenant).await?;
            if let Some(sealed) = unless_damaged(tenant, self.seal_tenant(tenant).await).transpose() {
                unless_away(tenant, sealed)?;
            }
        }
        Ok(())
    }

    /// The first key of a tenant that has none.
    async fn make_missing_key(&self, tenant: TenantId) -> Result<(), StoreError> {
        const KNOWN: &str = "SELECT generation FROM data_keys WHERE tenant_id = $1 LIMIT 1";
        let mut transaction = self.control_for(tenant).begin().await?;
        if transaction.fetch_optional(KNOWN, values![tenant]).await?.is_none() {
            let made = NewGeneration::first(tenant, SealingState::Sealing)?;
            data_keys::insert(&mut transaction, &self.inner.root_key, made, self.now()).await?;
        }
        transaction.commit(Unrecorded::Keys.permit()).await
    }

    /// Seals everything of a tenant with its newest key, and destroys the keys before it. Nobody else may write
    /// meanwhile.
    pub(crate) async fn seal_tenant(&self, tenant: TenantId) -> Result<(), StoreError> {
        let keys = self.data_keys(tenant).await?;
        let place = self.tenant_database(tenant).await?;
        let mut tally = Tally::default();
        seal_sources(&place, &keys, &mut tally).await?;
        seal_runs(&place, &keys, &mut tally).await?;
        seal_versions(&place, &keys, &mut tally).await?;
        seal_sign_on(&self.control_for(tenant), &keys, &mut tally).await?;
        for name in self.inner.blobs.names(tenant).await? {
            match self.inner.blobs.seal_anew(&keys, &name).await? {
                Resealed::Was => {}
                Resealed::Is => tally.sealed += 1,
                Resealed::Damaged => tally.damaged += 1,
            }
        }
        // What was overwritten would stay behind in the file otherwise.
        place.compact().await?;
        self.mark_sealed(&keys).await?;
        self.scour_keys().await;
        let Tally { sealed, damaged } = tally;
        tracing::info!(%tenant, sealed, generation = keys.newest(), "a tenant's data is sealed with its newest key");
        if damaged > 0 {
            tracing::warn!(%tenant, damaged, "some stored data opens with no key, and was left as it is");
        }
        Ok(())
    }
}

/// Looks at one stored text.
fn look(keys: &DataKeys, bound: &Bound, stored: &str, tally: &mut Tally) -> Result<Found, StoreError> {
    let text = match keys.try_open_text(bound, stored) {
        Some((_, generation)) if generation == keys.newest() => return Ok(Found::Sealed),
        Some((text, _)) => text,
        None if keys.may_be_plain() => stored.to_owned(),
        None => {
            tally.damaged += 1;
            return Ok(Found::Damaged);
        }
    };
    tally.sealed += 1;
    keys.seal_text(bound, &text).map(Found::Resealed)
}

/// The text that is to stand there, whether it changed or not.
fn sealed_text(
    keys: &DataKeys,
    bound: &Bound,
    stored: String,
    tally: &mut Tally,
    changed: &mut bool,
) -> Result<String, StoreError> {
    match look(keys, bound, &stored, tally)? {
        Found::Resealed(text) => {
            *changed = true;
            Ok(text)
        }
        Found::Sealed | Found::Damaged => Ok(stored),
    }
}

async fn seal_sources(place: &Database, keys: &DataKeys, tally: &mut Tally) -> Result<(), StoreError> {
    const ALL: &str = "SELECT id, digest, name FROM sources WHERE tenant_id = $1";
    const SET: &str = "UPDATE sources SET name = $3 WHERE tenant_id = $1 AND id = $2";
    let mut transaction = place.begin().await?;
    for row in transaction.fetch_all(ALL, values![keys.tenant()]).await? {
        let (id, digest): (SourceId, Digest) = (row.parsed("id")?, row.parsed("digest")?);
        if let Found::Resealed(name) = look(keys, &sources::name_bound(id, digest), &row.text("name")?, tally)? {
            transaction.execute(SET, values![keys.tenant(), id, name]).await?;
        }
    }
    transaction.commit(Unrecorded::Keys.permit()).await
}

async fn seal_sign_on(control: &Database, keys: &DataKeys, tally: &mut Tally) -> Result<(), StoreError> {
    const READ: &str = "SELECT issuer, client_id, client_secret FROM sign_on
        WHERE tenant_id = $1 AND client_secret IS NOT NULL";
    const SET: &str = "UPDATE sign_on SET client_secret = $2 WHERE tenant_id = $1";
    let mut transaction = control.begin().await?;
    if let Some(row) = transaction.fetch_optional(READ, values![keys.tenant()]).await? {
        let bound = sign_on::secret_bound(&row.text("issuer")?, &row.text("client_id")?);
        if let Found::Resealed(sealed) = look(keys, &bound, &row.text("client_secret")?, tally)? {
            transaction.execute(SET, values![keys.tenant(), sealed]).await?;
        }
    }
    transaction.commit(Unrecorded::Keys.permit()).await
}

/// Some runs in each transaction, and some events.
async fn seal_runs(place: &Database, keys: &Arc<DataKeys>, tally: &mut Tally) -> Result<(), StoreError> {
    const SOME: &str = "SELECT id, job_id, source_id, suffix, options, result, error_code, error_message,
            idempotency_key FROM runs
        WHERE tenant_id = $1 AND (CAST($2 AS TEXT) IS NULL OR id > $2) ORDER BY id LIMIT $3";
    let mut after: Option<RunId> = None;
    loop {
        let mut transaction = place.begin().await?;
        let rows = transaction.fetch_all(SOME, values![keys.tenant(), after, SEALING_ROWS_MAX]).await?;
        for row in &rows {
            seal_run(&mut transaction, keys, row, tally).await?;
        }
        transaction.commit(Unrecorded::Keys.permit()).await?;
        for row in &rows {
            let run = row.parsed("id")?;
            seal_events(place, keys, run, tally).await?;
            after = Some(run);
        }
        if rows.len() < SEALING_ROWS_MAX {
            return Ok(());
        }
    }
}

async fn seal_run(
    transaction: &mut Transaction,
    keys: &DataKeys,
    row: &Row,
    tally: &mut Tally,
) -> Result<(), StoreError> {
    const SET: &str = "UPDATE runs SET options = $3, result = $4, error_message = $5, idempotency_key = $6
        WHERE tenant_id = $1 AND id = $2";
    let (id, job, source): (RunId, _, _) = (row.parsed("id")?, row.parsed("job_id")?, row.parsed("source_id")?);
    let mut changed = false;
    let bound = runs::options_bound(id, job, source, &row.parsed("suffix")?);
    // A hash does not tell whether it is one; the options, which change in the same statement, do.
    let was_plain = keys.may_be_plain() && keys.try_open_text(&bound, &row.text("options")?).is_none();
    let options = sealed_text(keys, &bound, row.text("options")?, tally, &mut changed)?;
    let result = match row.optional_text("result")? {
        Some(result) => Some(sealed_text(keys, &runs::result_bound(id), result, tally, &mut changed)?),
        None => None,
    };
    let message = match (row.optional_text("error_code")?, row.optional_text("error_message")?) {
        (Some(code), Some(message)) => {
            Some(sealed_text(keys, &runs::error_bound(id, &code), message, tally, &mut changed)?)
        }
        // The two are written together.
        (None, message) | (_, message @ None) => message,
    };
    let key = match row.optional_text("idempotency_key")? {
        Some(key) if was_plain => Some(runs::idempotency_hash(keys, &key)?),
        key => key,
    };
    if changed {
        transaction.execute(SET, values![keys.tenant(), id, options, result, message, key]).await?;
    }
    Ok(())
}

async fn seal_events(place: &Database, keys: &DataKeys, run: RunId, tally: &mut Tally) -> Result<(), StoreError> {
    const SOME: &str = "SELECT sequence, kind, body FROM run_events
        WHERE tenant_id = $1 AND run_id = $2 AND sequence > $3 ORDER BY sequence LIMIT $4";
    const SET: &str = "UPDATE run_events SET body = $4 WHERE tenant_id = $1 AND run_id = $2 AND sequence = $3";
    let mut after = 0;
    loop {
        let mut transaction = place.begin().await?;
        let rows = transaction.fetch_all(SOME, values![keys.tenant(), run, after, SEALING_ROWS_MAX]).await?;
        for row in &rows {
            let (sequence, kind) = (row.count("sequence")?, row.text("kind")?);
            let bound = runs::event_bound(run, sequence, &kind);
            if let Found::Resealed(body) = look(keys, &bound, &row.text("body")?, tally)? {
                transaction.execute(SET, values![keys.tenant(), run, sequence, body]).await?;
            }
            after = sequence;
        }
        transaction.commit(Unrecorded::Keys.permit()).await?;
        if rows.len() < SEALING_ROWS_MAX {
            return Ok(());
        }
    }
}

/// A version cannot be changed, by anybody: it is taken out and put in again, with what it was, in one transaction.
async fn seal_versions(place: &Database, keys: &DataKeys, tally: &mut Tally) -> Result<(), StoreError> {
    const ALL: &str =
        "SELECT number, suffix, digest, base_digest, parent, run_id, source_id, manifest, eval, created_at
        FROM versions WHERE tenant_id = $1";
    const REMOVE: &str = "DELETE FROM versions WHERE tenant_id = $1 AND number = $2";
    let mut transaction = place.begin().await?;
    transaction.defer_references().await?;
    for row in transaction.fetch_all(ALL, values![keys.tenant()]).await? {
        let (number, run, digest): (VersionNumber, _, _) =
            (row.version("number")?, row.parsed("run_id")?, row.parsed("digest")?);
        let mut changed = false;
        let mut sealed = |column, stored| {
            let bound = versions::bound(column, number, run, digest);
            sealed_text(keys, &bound, stored, tally, &mut changed)
        };
        let manifest = sealed(versions::MANIFEST, row.text("manifest")?)?;
        let eval = sealed(versions::EVAL, row.text("eval")?)?;
        if changed {
            transaction.execute(REMOVE, values![keys.tenant(), number]).await?;
            let again = values![
                keys.tenant(),
                number,
                row.text("suffix")?,
                digest,
                row.text("base_digest")?,
                row.optional_version("parent")?,
                run,
                row.text("source_id")?,
                manifest,
                eval,
                row.time("created_at")?,
            ];
            transaction.execute(versions::INSERT, again).await?;
        }
    }
    transaction.commit(Unrecorded::Keys.permit()).await
}
