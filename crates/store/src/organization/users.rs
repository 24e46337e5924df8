//! People of a tenant: finding, raising and lowering, removing. They come by `invites`.

use atelier_access::Granted;
use atelier_access::right::{Appoint, ManageOrganization, ReadOrganization};
use atelier_domain::limits::USERS_PER_TENANT_MAX;
use atelier_domain::{Email, Label, PersonRole, TenantId, Timestamp, UserId};
use serde_json::json;

use super::{OrganizationConflict, Page, PageQuery, belonging, of_the_whole};
use crate::audit::events::{DELETE_USER, UPDATE_USER};
use crate::error::StoreError;
use crate::key_cache::announce;
use crate::open::Store;
use crate::sql::{Database, Row, Transaction, values};

pub(crate) const NOT_FOUND: StoreError = StoreError::NotFound { what: "person" };

/// A person of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRecord {
    /// Its id.
    pub id: UserId,
    /// The address that it is known by, unique among those who are there.
    pub email: Email,
    /// What it is called.
    pub name: Option<Label>,
    /// What it is to the tenant.
    pub role: PersonRole,
    /// Since when it is there.
    pub added_at: Timestamp,
    /// When one of its keys was last used, to the minute.
    pub key_last_used_at: Option<Timestamp>,
}

impl Store {
    /// The tenant's people, oldest first; only those with one of these addresses, if there are some.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the page is to begin after somebody who is not there; [`atelier_access::Denied`] for
    /// the key of one project.
    pub async fn users(
        &self,
        grant: &Granted<ReadOrganization>,
        query: PageQuery<UserId>,
        emails: &[Email],
    ) -> Result<Page<UserRecord>, StoreError> {
        // The list is one text, `,one,two,`: an address holds no comma, and may hold signs that LIKE takes for others.
        const SQL: &str = "SELECT id, email, name, role, added_at, (SELECT MAX(last_used_at) FROM keys
            WHERE keys.tenant_id = users.tenant_id AND keys.user_id = users.id) AS key_last_used_at FROM users
            WHERE tenant_id = $1 AND id > $2 AND removed_at IS NULL
            AND ($3 = '' OR length(replace($3, ',' || email || ',', ',')) < length($3)) ORDER BY id LIMIT $4";
        if let Some(after) = query.after {
            self.user(grant, after).await?;
        }
        of_the_whole(grant)?;
        let wanted = emails.iter().map(Email::as_str).collect::<Vec<_>>().join(",");
        let wanted = if wanted.is_empty() { wanted } else { format!(",{wanted},") };
        let asked = values![grant.tenant(), query.after_text(), wanted, query.rows()];
        query.page(self.control_for(grant.tenant()).fetch_all(SQL, asked).await?, record_of)
    }

    /// One of them.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`atelier_access::Denied`] for the key of one project.
    pub async fn user(&self, grant: &Granted<ReadOrganization>, user: UserId) -> Result<UserRecord, StoreError> {
        of_the_whole(grant)?;
        let row = self.control_for(grant.tenant()).fetch_optional(READ, values![grant.tenant(), user]).await?;
        record_of(&row.ok_or(NOT_FOUND)?)
    }

    /// Raises or lowers a person. Keys that go beyond what it is afterwards are worthless within a second.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`OrganizationConflict::LastOwner`].
    pub async fn set_user_role(
        &self,
        grant: &Granted<Appoint>,
        user: UserId,
        role: PersonRole,
    ) -> Result<UserRecord, StoreError> {
        const SQL: &str = "UPDATE users SET role = $3 WHERE tenant_id = $1 AND id = $2";
        let tenant = grant.tenant();
        let mut transaction = self.control_for(tenant).begin().await?;
        let before = present(&mut transaction, tenant, user).await?;
        if role != PersonRole::Owner {
            spare_last_owner(&mut transaction, tenant, &before).await?;
        }
        transaction.execute(SQL, values![tenant, user, role]).await?;
        let keys = belonging::end_what_exceeds(&mut transaction, tenant, user, self.now()).await?;
        let event = UPDATE_USER.of(user, json!({"role": role.as_str(), "from": before.role.as_str(), "keys": keys}));
        let recorded = self.record_administration(&mut transaction, grant, event).await?;
        announce(&mut transaction).await?;
        self.commit(transaction, recorded).await?;
        self.inner.keys.forget_all();
        Ok(UserRecord { role, ..before })
    }

    /// Removes a person: its keys are worthless within a second and everywhere, and what names it is forgotten. Its id
    /// stays, which the audit trail and the books refer to.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`OrganizationConflict::LastOwner`].
    pub async fn remove_user(&self, grant: &Granted<ManageOrganization>, user: UserId) -> Result<(), StoreError> {
        const REMOVE: &str =
            "UPDATE users SET removed_at = $3, email = '', name = NULL WHERE tenant_id = $1 AND id = $2";
        const REVOKE: &str =
            "UPDATE keys SET revoked_at = $3 WHERE tenant_id = $1 AND user_id = $2 AND revoked_at IS NULL";
        const LEAVE: &str = "DELETE FROM project_users WHERE tenant_id = $1 AND user_id = $2";
        const FORGET: &str = "DELETE FROM invites WHERE tenant_id = $1 AND email = $2";
        let (tenant, now) = (grant.tenant(), self.now());
        let mut transaction = self.control_for(tenant).begin().await?;
        let before = present(&mut transaction, tenant, user).await?;
        spare_last_owner(&mut transaction, tenant, &before).await?;
        transaction.execute(FORGET, values![tenant, &before.email]).await?;
        transaction.execute(LEAVE, values![tenant, user]).await?;
        let keys = transaction.execute(REVOKE, values![tenant, user, now]).await?;
        transaction.execute(REMOVE, values![tenant, user, now]).await?;
        let event = DELETE_USER.of(user, json!({"keys": keys}));
        let recorded = self.record_administration(&mut transaction, grant, event).await?;
        announce(&mut transaction).await?;
        self.commit(transaction, recorded).await?;
        self.inner.keys.forget_all();
        Ok(())
    }
}

const READ: &str = "SELECT id, email, name, role, added_at, (SELECT MAX(last_used_at) FROM keys
    WHERE keys.tenant_id = users.tenant_id AND keys.user_id = users.id) AS key_last_used_at FROM users
    WHERE tenant_id = $1 AND id = $2 AND removed_at IS NULL";

/// A person who is there.
pub(crate) async fn present(
    transaction: &mut Transaction,
    tenant: TenantId,
    user: UserId,
) -> Result<UserRecord, StoreError> {
    let row = transaction.fetch_optional(READ, values![tenant, user]).await?.ok_or(NOT_FOUND)?;
    record_of(&row)
}

/// The same outside of a transaction.
pub(crate) async fn find(control: &Database, tenant: TenantId, user: UserId) -> Result<Option<UserRecord>, StoreError> {
    control.fetch_optional(READ, values![tenant, user]).await?.as_ref().map(record_of).transpose()
}

/// The person who is there by this address.
pub(crate) async fn present_by_email(
    transaction: &mut Transaction,
    tenant: TenantId,
    email: &Email,
) -> Result<Option<UserRecord>, StoreError> {
    const SQL: &str = "SELECT id FROM users WHERE tenant_id = $1 AND email = $2 AND removed_at IS NULL";
    match transaction.fetch_optional(SQL, values![tenant, email]).await? {
        Some(row) => present(transaction, tenant, row.parsed("id")?).await.map(Some),
        None => Ok(None),
    }
}

/// Adds a person.
pub(super) async fn insert(
    transaction: &mut Transaction,
    tenant: TenantId,
    user: &UserRecord,
) -> Result<(), StoreError> {
    const COUNT: &str = "SELECT COUNT(*) AS present FROM users WHERE tenant_id = $1 AND removed_at IS NULL";
    const SQL: &str = "INSERT INTO users (tenant_id, id, email, name, role, added_at) VALUES ($1, $2, $3, $4, $5, $6)";
    let present = transaction.fetch_one(COUNT, values![tenant]).await?.count("present")?;
    if present >= USERS_PER_TENANT_MAX as u64 {
        return Err(StoreError::TooMany { what: "people", limit: USERS_PER_TENANT_MAX });
    }
    let row = values![tenant, user.id, &user.email, user.name.as_ref(), user.role, user.added_at];
    transaction.execute(SQL, row).await.map(|_| ())
}

/// Refuses when this is the only owner there is.
async fn spare_last_owner(
    transaction: &mut Transaction,
    tenant: TenantId,
    user: &UserRecord,
) -> Result<(), StoreError> {
    const OTHERS: &str = "SELECT COUNT(*) AS others FROM users
        WHERE tenant_id = $1 AND id <> $2 AND role = $3 AND removed_at IS NULL";
    if user.role != PersonRole::Owner {
        return Ok(());
    }
    let others = transaction.fetch_one(OTHERS, values![tenant, user.id, PersonRole::Owner]).await?.count("others")?;
    if others == 0 { Err(OrganizationConflict::LastOwner.into()) } else { Ok(()) }
}

pub(super) fn record_of(row: &Row) -> Result<UserRecord, StoreError> {
    Ok(UserRecord {
        id: row.parsed("id")?,
        email: row.parsed("email")?,
        name: row.optional_parsed("name")?,
        role: row.parsed("role")?,
        added_at: row.time("added_at")?,
        key_last_used_at: row.optional_time("key_last_used_at")?,
    })
}
