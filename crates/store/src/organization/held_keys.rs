//! Keys together with who holds them: a project's, and those that administer the tenant.

use atelier_access::Granted;
use atelier_access::right::ManageKeys;
use atelier_domain::{
    Email, KeyId, Label, PersonRole, ProjectId, ProjectRole, Role, ServiceAccountId, Timestamp, UserId,
};

use super::{Page, PageQuery};
use crate::error::StoreError;
use crate::keys::{KeySummary, NOT_FOUND, summary_of};
use crate::open::Store;
use crate::sql::{Row, Value, values};

/// A key that is not revoked, and its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldKey {
    /// The key.
    pub key: KeySummary,
    /// Who holds it, where that is known.
    pub holder: Option<Holder>,
}

/// Who holds a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A person.
    User {
        /// Its id.
        id: UserId,
        /// The address that it is known by.
        email: Email,
        /// What it is called.
        name: Option<Label>,
        /// What it is to the tenant.
        role: PersonRole,
        /// What it is to the key's project, where it belongs to that.
        project_role: Option<ProjectRole>,
        /// Since when it is there.
        added_at: Timestamp,
    },
    /// A machine.
    ServiceAccount {
        /// Its id.
        id: ServiceAccountId,
        /// What it is called.
        name: Label,
        /// What it is to the key's project: `none` for one that was made without a key.
        role: String,
        /// When it was made.
        created_at: Timestamp,
    },
}

/// Which keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keyring {
    /// Those of a project.
    Project(ProjectId),
    /// Those that administer the tenant.
    Administration,
}

/// The order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyOrder {
    /// Oldest first.
    #[default]
    OldestFirst,
    /// Newest first.
    NewestFirst,
}

macro_rules! held_keys {
    ($condition:literal) => {
        concat!(
            "SELECT keys.id AS id, public_id, keys.name AS name, keys.role AS role, purpose, scopes, keys.project_id AS project_id,
            keys.user_id AS user_id, service_account_id, keys.created_at AS created_at, keys.expires_at AS expires_at,
            last_used_at, revoked_at, users.email AS user_email, users.name AS user_name, users.role AS user_role,
            users.added_at AS user_added_at, project_users.role AS user_project_role,
            service_accounts.name AS account_name, service_accounts.role AS account_role,
            service_accounts.created_at AS account_created_at
            FROM keys
            LEFT JOIN users ON users.tenant_id = keys.tenant_id AND users.id = keys.user_id AND users.removed_at IS NULL
            LEFT JOIN project_users ON project_users.tenant_id = keys.tenant_id
                AND project_users.project_id = keys.project_id AND project_users.user_id = keys.user_id
            LEFT JOIN service_accounts ON service_accounts.tenant_id = keys.tenant_id
                AND service_accounts.id = keys.service_account_id
            WHERE keys.tenant_id = $1 AND keys.purpose = 'key' AND keys.revoked_at IS NULL
            AND (($2 <> '' AND keys.project_id = $2) OR ($2 = '' AND keys.role = 'admin')) AND ",
            $condition
        )
    };
}

impl Store {
    /// A page of the keys of a project, or of those that administer the tenant.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such project, or none of its keys to begin after.
    pub async fn held_keys(
        &self,
        grant: &Granted<ManageKeys>,
        ring: Keyring,
        query: PageQuery<KeyId>,
        order: KeyOrder,
    ) -> Result<Page<HeldKey>, StoreError> {
        const OLDEST_FIRST: &str = held_keys!("keys.id > $3 ORDER BY keys.id LIMIT $4");
        const NEWEST_FIRST: &str = held_keys!("($3 = '' OR keys.id < $3) ORDER BY keys.id DESC LIMIT $4");
        const PROJECT: &str = "SELECT id FROM projects WHERE tenant_id = $1 AND id = $2";
        let control = self.control_for(grant.tenant());
        if let Keyring::Project(project) = ring {
            let found = control.fetch_optional(PROJECT, values![grant.tenant(), project]).await?;
            found.ok_or(super::projects::NOT_FOUND)?;
        }
        if let Some(after) = query.after {
            self.held_key(grant, ring, after).await?;
        }
        let statement = match order {
            KeyOrder::OldestFirst => OLDEST_FIRST,
            KeyOrder::NewestFirst => NEWEST_FIRST,
        };
        let asked = values![grant.tenant(), ring.name(), query.after_text(), query.rows()];
        query.page(control.fetch_all(statement, asked).await?, record_of)
    }

    /// One of them.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], alike for a key that is revoked, another project's or another tenant's.
    pub async fn held_key(
        &self,
        grant: &Granted<ManageKeys>,
        ring: Keyring,
        key: KeyId,
    ) -> Result<HeldKey, StoreError> {
        const ONE: &str = held_keys!("keys.id = $3");
        let asked: Vec<Value> = values![grant.tenant(), ring.name(), key];
        let row = self.control_for(grant.tenant()).fetch_optional(ONE, asked).await?;
        record_of(&row.ok_or(NOT_FOUND)?)
    }
}

impl Keyring {
    /// The project, or nothing for those that administer.
    fn name(self) -> String {
        match self {
            Self::Project(project) => project.to_string(),
            Self::Administration => String::new(),
        }
    }
}

fn record_of(row: &Row) -> Result<HeldKey, StoreError> {
    let key = summary_of(row)?;
    debug_assert!(key.role != Role::Operator, "an operator's key is no tenant's");
    let holder = match (row.optional_text("user_email")?, row.optional_text("account_name")?) {
        (Some(_), _) => Some(Holder::User {
            id: row.parsed("user_id")?,
            email: row.parsed("user_email")?,
            name: row.optional_parsed("user_name")?,
            role: row.parsed("user_role")?,
            project_role: row.optional_parsed("user_project_role")?,
            added_at: row.time("user_added_at")?,
        }),
        (None, Some(_)) => Some(Holder::ServiceAccount {
            id: row.parsed("service_account_id")?,
            name: row.parsed("account_name")?,
            role: row.text("account_role")?,
            created_at: row.time("account_created_at")?,
        }),
        (None, None) => None,
    };
    Ok(HeldKey { key, holder })
}
