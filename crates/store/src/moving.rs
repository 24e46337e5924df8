//! Moving a tenant to another place: its rows are copied whole while nobody is in a transaction there, seen to be the
//! same, and only then its row says the new place.
//!
//! At each moment one of the two places is the tenant's and the other is named as left over. Wherever a move is cut
//! short, by a fault or a kill, the left over place is removed by the next start, or by the next move.

use atelier_access::Granted;
use atelier_access::right::ManageTenant;
use atelier_domain::{Separation, TenantId};
use serde_json::json;

use crate::audit::Unrecorded;
use crate::audit::events::MOVE_TENANT;
use crate::error::StoreError;
use crate::open::{ServerSide, Store};
use crate::places;
use crate::sql::{Database, Pause, Transaction, values};
use crate::tenants::TenantRecord;

/// Rows that are on their way at once.
const BATCH: &str = "FETCH 200 FROM moved";

impl Store {
    /// Moves the tenant's rows to another place; its keys, its blobs and its clients notice a pause, no more.
    ///
    /// # Errors
    /// [`StoreError::UnsupportedSeparation`] on SQLite, where a tenant has a file; [`StoreError::OwnerNeeded`];
    /// [`StoreError::OthersAtWork`]; [`StoreError::Busy`] when transactions of the tenant do not end. The tenant is
    /// where it was then.
    pub async fn move_tenant(&self, grant: &Granted<ManageTenant>, to: Separation) -> Result<TenantRecord, StoreError> {
        let (store, grant) = (self.clone(), grant.clone());
        // In a task of its own: whoever asked may go away, a move that has begun ends one way or the other.
        let moved = tokio::spawn(async move { store.move_alone(&grant, to).await }).await;
        moved.map_err(|_| StoreError::ShuttingDown)?
    }

    async fn move_alone(&self, grant: &Granted<ManageTenant>, to: Separation) -> Result<TenantRecord, StoreError> {
        let _turn = self.without_moves().await;
        // Not before it is this one's turn: a move that was asked for twice would take the place that the first has made
        // for one that is left over.
        let before = self.read_tenant(grant.tenant()).await?;
        if before.separation == to {
            return Ok(before);
        }
        let Some(side) = self.inner.server.as_ref().filter(|_| to != Separation::File) else {
            return Err(StoreError::UnsupportedSeparation { separation: to });
        };
        // Another server would go on writing to the old place.
        if !side.hold.take_alone().await? {
            return Err(StoreError::OthersAtWork);
        }
        let moved = self.move_rows(side, &before, grant, to).await;
        side.hold.share().await?;
        moved
    }

    async fn move_rows(
        &self,
        side: &ServerSide,
        before: &TenantRecord,
        grant: &Granted<ManageTenant>,
        to: Separation,
    ) -> Result<TenantRecord, StoreError> {
        let (tenant, from) = (before.id, before.separation);
        self.remove_leftover(tenant).await?;
        self.set_leftover(tenant, Some(to)).await?;
        let place = self.tenant_database(tenant).await?;
        let flipped = match place.pause().await {
            Ok(pause) => self.copy_and_flip(side, pause, before, grant, to).await,
            Err(error) => Err(error),
        };
        self.inner.tenants.forget(tenant).await;
        // Whichever place is not the tenant's now.
        if let Err(error) = self.remove_leftover(tenant).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "a place is left over; the next start removes it");
        }
        flipped?;
        tracing::info!(%tenant, %from, %to, "moved a tenant's rows");
        Ok(TenantRecord { separation: to, ..before.clone() })
    }

    /// Nobody is in the place until the pause ends, and then everybody is sent to the new one.
    async fn copy_and_flip(
        &self,
        side: &ServerSide,
        pause: Pause,
        before: &TenantRecord,
        grant: &Granted<ManageTenant>,
        to: Separation,
    ) -> Result<(), StoreError> {
        let (tenant, from, now) = (before.id, before.separation, self.now());
        places::create_on_server(&side.server, tenant, to, now).await?;
        let source = places::place_on_server(&side.server, tenant, from);
        let target = places::place_on_server(&side.server, tenant, to);
        let copied = copy(&source, &target).await;
        source.close().await;
        if let Err(error) = copied {
            target.close().await;
            return Err(error);
        }
        match self.flip(before, grant, to).await {
            Ok(()) => pause.goes_to(&target).await,
            Err(error) => {
                target.close().await;
                // The answer to the commit may be lost, and with it where the tenant is: nobody goes in by this handle
                // any more, and the next asks anew.
                pause.goes_nowhere();
                return Err(error);
            }
        }
        Ok(())
    }

    async fn flip(
        &self,
        before: &TenantRecord,
        grant: &Granted<ManageTenant>,
        to: Separation,
    ) -> Result<(), StoreError> {
        const SQL: &str = "UPDATE tenants SET separation = $2, leftover = $3
            WHERE id = $1 AND separation = $3 AND deleted_at IS NULL";
        let (tenant, from) = (before.id, before.separation);
        let mut transaction = self.control_for(tenant).begin().await?;
        if transaction.execute(SQL, values![tenant, to, from]).await? == 0 {
            return Err(StoreError::NotFound { what: "tenant" });
        }
        let event = MOVE_TENANT.of(tenant, json!({"from": from.as_str(), "to": to.as_str()}));
        let recorded = self.record_administration(&mut transaction, grant, event).await?;
        self.commit(transaction, recorded).await
    }

    /// Removes what moves left over that a crash cut short.
    pub(crate) async fn finish_moves(&self) -> Result<(), StoreError> {
        const SQL: &str = "SELECT id FROM tenants WHERE leftover IS NOT NULL AND deleted_at IS NULL";
        for row in self.control().fetch_all(SQL, values![]).await? {
            self.remove_leftover(row.parsed("id")?).await?;
        }
        Ok(())
    }

    async fn remove_leftover(&self, tenant: TenantId) -> Result<(), StoreError> {
        // The place where the tenant is is never left over, whatever stands there.
        const SQL: &str =
            "SELECT leftover FROM tenants WHERE id = $1 AND leftover IS NOT NULL AND leftover <> separation";
        let Some(row) = self.control_for(tenant).fetch_optional(SQL, values![tenant]).await? else { return Ok(()) };
        self.inner.tenants.discard(tenant, row.parsed("leftover")?).await?;
        self.set_leftover(tenant, None).await
    }

    async fn set_leftover(&self, tenant: TenantId, place: Option<Separation>) -> Result<(), StoreError> {
        const SQL: &str = "UPDATE tenants SET leftover = $2 WHERE id = $1 AND COALESCE(separation <> $2, TRUE)";
        let mut transaction = self.control_for(tenant).begin().await?;
        if transaction.execute(SQL, values![tenant, place]).await? == 0 {
            return Err(StoreError::NotFound { what: "tenant" });
        }
        transaction.commit(Unrecorded::Place.permit()).await
    }
}

/// Copies a tenant's rows in one consistent pass, and sees that they are the same before they count.
async fn copy(source: &Database, target: &Database) -> Result<(), StoreError> {
    let mut from = source.begin_snapshot().await?;
    let mut into = target.begin().await?;
    from.execute("DECLARE moved CURSOR FOR SELECT name, contents FROM export_rows()", values![]).await?;
    loop {
        let mut batch = Vec::new();
        for row in from.fetch_all(BATCH, values![]).await? {
            batch.push(json!([row.text("name")?, row.text("contents")?]));
        }
        if batch.is_empty() {
            break;
        }
        let batch = serde_json::Value::Array(batch);
        into.fetch_one("SELECT import_rows($1) AS taken", values![&batch]).await?;
    }
    let (sent, arrived) = (digests(&mut from).await?, digests(&mut into).await?);
    if sent != arrived {
        return Err(StoreError::corrupt(format!("rows that were moved: {sent:?} became {arrived:?}")));
    }
    into.commit(Unrecorded::Place.permit()).await
}

/// How many rows of each table there are, and sums over their hashes.
async fn digests(transaction: &mut Transaction) -> Result<Vec<(String, String)>, StoreError> {
    const SQL: &str = "SELECT name, digest FROM digest_rows() ORDER BY name";
    let rows = transaction.fetch_all(SQL, values![]).await?;
    rows.iter().map(|row| Ok((row.text("name")?, row.text("digest")?))).collect()
}
