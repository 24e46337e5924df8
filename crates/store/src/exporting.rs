//! What only an export of a whole tenant reads, and the event that one was given out.

use atelier_access::Granted;
use atelier_access::right::{ReadAudit, ReadUsage};
use atelier_domain::limits::EXPORT_PAGE_ROWS;
use serde_json::{Value as Json, json};

use crate::audit::events::EXPORT_TENANT;
use crate::error::StoreError;
use crate::open::Store;
use crate::sql::{Row, values};

/// A row of the usage ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct LedgerRow {
    /// Its place in the ledger.
    pub sequence: u64,
    /// The row, by the names of its columns.
    pub content: Json,
}

impl Store {
    /// Rows of the ledger that are the tenant's, in the order in which they were written, after this place.
    ///
    /// # Errors
    /// What the database says.
    pub async fn ledger_rows(&self, grant: &Granted<ReadUsage>, after: u64) -> Result<Vec<LedgerRow>, StoreError> {
        const SQL: &str =
            "SELECT sequence, kind, request_id, key_id, model, plan, accepted_at, written_at, input_tokens,
            input_cached_tokens, output_tokens, price_input, price_input_cached, price_output, cost, outcome, reason
            FROM usage_events WHERE tenant_id = $1 AND sequence > $2 ORDER BY sequence LIMIT $3";
        let tenant = grant.tenant();
        let rows = self.control_for(tenant).fetch_all(SQL, values![tenant, after, EXPORT_PAGE_ROWS]).await?;
        rows.iter().map(ledger_row_of).collect()
    }

    /// Writes into the trail that all of the tenant was given out.
    ///
    /// # Errors
    /// What the database says.
    pub async fn record_tenant_export(&self, grant: &Granted<ReadAudit>) -> Result<(), StoreError> {
        let tenant = grant.tenant();
        let mut transaction = self.tenant_database(tenant).await?.begin().await?;
        let recorded = self.record_work(&mut transaction, grant, EXPORT_TENANT.of(tenant, json!({}))).await?;
        self.commit(transaction, recorded).await
    }
}

fn ledger_row_of(row: &Row) -> Result<LedgerRow, StoreError> {
    let mut content = serde_json::Map::new();
    let sequence = row.count("sequence")?;
    content.insert("sequence".to_owned(), sequence.into());
    for column in ["kind", "request_id", "key_id", "model", "plan"] {
        content.insert(column.to_owned(), row.optional_text(column)?.into());
    }
    for column in ["accepted_at", "written_at"] {
        content.insert(column.to_owned(), row.time(column)?.seconds().into());
    }
    for column in [
        "input_tokens",
        "input_cached_tokens",
        "output_tokens",
        "price_input",
        "price_input_cached",
        "price_output",
        "cost",
    ] {
        content.insert(column.to_owned(), row.int(column)?.into());
    }
    for column in ["outcome", "reason"] {
        content.insert(column.to_owned(), row.optional_text(column)?.into());
    }
    Ok(LedgerRow { sequence, content: Json::Object(content) })
}
