//! Invites: how people come. Whoever shows an invite's secret accepts it, and gets a key; whoever an issuer vouches for
//! accepts by his address, and signs on through the issuer from then on.

use atelier_access::key::KEY_RANDOM_BYTES;
use atelier_access::right::{Appoint, JoinOrganization, ManageOrganization, ReadOrganization};
use atelier_access::{ApiKey, Caller, Denied, Granted, InviteSecret, KeyKind, KeyOwner, PublicId, verify_invite};
use atelier_domain::limits::{INVITE_LIFETIME, INVITES_PER_TENANT_MAX, PROJECTS_PER_INVITE_MAX};
use atelier_domain::{Email, InviteId, Label, PersonRole, ProjectId, ProjectRole, Role, TenantId, Timestamp, UserId};
use serde_json::{Value as Json, json};

use super::users::UserRecord;
use super::{OrganizationConflict, Page, PageQuery, members, of_the_whole, projects, users};
use crate::audit::events::{ACCEPT_INVITE, DELETE_INVITE, SEND_INVITE};
use crate::error::StoreError;
use crate::keys::{CreatedKey, NewRow};
use crate::open::{Store, random_bytes};
use crate::sql::{Row, Transaction, values};

const NOT_FOUND: StoreError = StoreError::NotFound { what: "invite" };

/// An invite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteRecord {
    /// Its id.
    pub id: InviteId,
    /// Who is invited.
    pub email: Email,
    /// What the person will be to the tenant.
    pub role: PersonRole,
    /// The projects that the person will belong to, and as what.
    pub projects: Vec<(ProjectId, ProjectRole)>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is worthless.
    pub expires_at: Timestamp,
    /// When it was accepted.
    pub accepted_at: Option<Timestamp>,
}

/// Somebody to be invited.
#[derive(Debug, Clone)]
pub struct NewInvite {
    /// Who.
    pub email: Email,
    /// What the person will be to the tenant.
    pub role: PersonRole,
    /// The projects that the person will belong to, and as what; a member of the default project when absent.
    pub projects: Option<Vec<(ProjectId, ProjectRole)>>,
}

/// An invite that was just made: the only time that its secret is to be had.
#[derive(Debug, Clone)]
pub struct CreatedInvite {
    /// The invite.
    pub record: InviteRecord,
    /// What accepts it.
    pub secret: ApiKey,
}

/// Somebody who came by an invite's secret.
#[derive(Debug, Clone)]
pub struct Joined {
    /// Who.
    pub user: UserRecord,
    /// A key of the person's own: an admin's for an owner, else a member's in the first project of the invite, else a
    /// reader's.
    pub key: CreatedKey,
}

impl Store {
    /// Invites somebody; the secret is in the answer and nowhere else.
    ///
    /// # Errors
    /// [`OrganizationConflict::UserExists`]; [`OrganizationConflict::InviteExists`] while another waits for the address;
    /// [`StoreError::NotFound`] for a project that is not there; [`StoreError::TooMany`].
    pub async fn create_invite(&self, grant: &Granted<Appoint>, new: NewInvite) -> Result<CreatedInvite, StoreError> {
        const WAITS: &str = "SELECT id FROM invites
            WHERE tenant_id = $1 AND email = $2 AND accepted_at IS NULL AND expires_at > $3";
        const COUNT: &str = "SELECT COUNT(*) AS waiting FROM invites
            WHERE tenant_id = $1 AND accepted_at IS NULL AND expires_at > $2";
        const FORGET: &str = "DELETE FROM invites WHERE tenant_id = $1 AND email = $2";
        let (tenant, now) = (grant.tenant(), self.now());
        let projects = new.projects.unwrap_or_else(|| vec![(ProjectId::default_of(tenant), ProjectRole::Member)]);
        if projects.len() > PROJECTS_PER_INVITE_MAX {
            return Err(StoreError::TooMany { what: "projects of one invite", limit: PROJECTS_PER_INVITE_MAX });
        }
        let mut transaction = self.control_for(tenant).begin().await?;
        self.living_tenant(&mut transaction, tenant).await?;
        for (project, _) in &projects {
            projects::living(&mut transaction, tenant, *project).await?;
        }
        if users::present_by_email(&mut transaction, tenant, &new.email).await?.is_some() {
            return Err(OrganizationConflict::UserExists.into());
        }
        if transaction.fetch_optional(WAITS, values![tenant, &new.email, now]).await?.is_some() {
            return Err(OrganizationConflict::InviteExists.into());
        }
        let waiting = transaction.fetch_one(COUNT, values![tenant, now]).await?.count("waiting")?;
        if waiting >= INVITES_PER_TENANT_MAX as u64 {
            return Err(StoreError::TooMany { what: "invites that wait", limit: INVITES_PER_TENANT_MAX });
        }
        // What is past its time goes when it is replaced.
        transaction.execute(FORGET, values![tenant, &new.email]).await?;
        let record = InviteRecord {
            id: InviteId::generate(now, random_bytes()?),
            email: new.email,
            role: new.role,
            projects,
            created_at: now,
            expires_at: now.plus(INVITE_LIFETIME),
            accepted_at: None,
        };
        let secret = ApiKey::generate(KeyKind::Invite, random_bytes::<KEY_RANDOM_BYTES>()?);
        self.insert_invite(&mut transaction, tenant, &record, &secret).await?;
        let projects: Vec<String> = record.projects.iter().map(|(project, _)| project.to_string()).collect();
        let event = SEND_INVITE.of(record.id, json!({"role": record.role.as_str(), "projects": projects}));
        let recorded = self.record_administration(&mut transaction, grant, event).await?;
        self.commit(transaction, recorded).await?;
        Ok(CreatedInvite { record, secret })
    }

    async fn insert_invite(
        &self,
        transaction: &mut Transaction,
        tenant: TenantId,
        record: &InviteRecord,
        secret: &ApiKey,
    ) -> Result<(), StoreError> {
        const SQL: &str =
            "INSERT INTO invites (tenant_id, id, public_id, secret_hash, email, role, projects, created_at,
            expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let hash = secret.secret_hash(&self.inner.pepper);
        let row = values![
            tenant,
            record.id,
            secret.public_id().as_str(),
            hash.as_slice(),
            &record.email,
            record.role,
            &projects_as_json(&record.projects),
            record.created_at,
            record.expires_at
        ];
        transaction.execute(SQL, row).await.map(|_| ())
    }

    /// The tenant's invites, oldest first: those that wait, those that were accepted and those past their time.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the page is to begin after one that is not there; [`Denied`] for the key of one
    /// project.
    pub async fn invites(
        &self,
        grant: &Granted<ReadOrganization>,
        query: PageQuery<InviteId>,
    ) -> Result<Page<InviteRecord>, StoreError> {
        const SQL: &str = "SELECT id, email, role, projects, created_at, expires_at, accepted_at FROM invites
            WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3";
        of_the_whole(grant)?;
        if let Some(after) = query.after {
            self.invite(grant, after).await?;
        }
        let asked = values![grant.tenant(), query.after_text(), query.rows()];
        query.page(self.control_for(grant.tenant()).fetch_all(SQL, asked).await?, record_of)
    }

    /// One of them.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`Denied`] for the key of one project.
    pub async fn invite(
        &self,
        grant: &Granted<ReadOrganization>,
        invite: InviteId,
    ) -> Result<InviteRecord, StoreError> {
        of_the_whole(grant)?;
        let row = self.control_for(grant.tenant()).fetch_optional(READ, values![grant.tenant(), invite]).await?;
        record_of(&row.ok_or(NOT_FOUND)?)
    }

    /// Makes an invite worthless at once, and forgets it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`OrganizationConflict::InviteAccepted`] once it was: remove the person instead.
    pub async fn delete_invite(&self, grant: &Granted<ManageOrganization>, invite: InviteId) -> Result<(), StoreError> {
        const SQL: &str = "DELETE FROM invites WHERE tenant_id = $1 AND id = $2";
        let tenant = grant.tenant();
        let mut transaction = self.control_for(tenant).begin().await?;
        let row = transaction.fetch_optional(READ, values![tenant, invite]).await?.ok_or(NOT_FOUND)?;
        if record_of(&row)?.accepted_at.is_some() {
            return Err(OrganizationConflict::InviteAccepted.into());
        }
        transaction.execute(SQL, values![tenant, invite]).await?;
        let recorded = self.record_administration(&mut transaction, grant, DELETE_INVITE.of(invite, json!({}))).await?;
        self.commit(transaction, recorded).await
    }

    /// Who shows this secret of an invite.
    ///
    /// # Errors
    /// [`Denied::NotAuthenticated`] when there is no such invite that waits; [`Denied::Suspended`].
    pub(crate) async fn authenticate_invited(&self, secret: &ApiKey) -> Result<Caller, StoreError> {
        const SQL: &str = "SELECT invites.id AS id, invites.public_id AS public_id, invites.tenant_id AS tenant_id,
            secret_hash, expires_at, suspended_at FROM invites JOIN tenants ON tenants.id = invites.tenant_id
            WHERE public_id = $1 AND accepted_at IS NULL AND deleted_at IS NULL";
        let row = self.control().fetch_optional(SQL, values![secret.public_id().as_str()]).await?;
        let record = secret_of(&row.ok_or(Denied::NotAuthenticated)?)?;
        Ok(verify_invite(secret, &record, &self.inner.pepper, self.now())?)
    }

    /// Makes whoever showed an invite's secret one of the tenant's people, with a key of its own.
    ///
    /// # Errors
    /// [`Denied::Hidden`] when no such secret was shown; [`StoreError::NotFound`] when the invite does not wait any more;
    /// [`StoreError::TooMany`].
    pub async fn accept_invite(&self, grant: &Granted<JoinOrganization>, name: Label) -> Result<Joined, StoreError> {
        let (tenant, now) = (grant.tenant(), self.now());
        let invite = grant.actor().invite().ok_or(Denied::Hidden)?;
        let mut transaction = self.control_for(tenant).begin().await?;
        self.living_tenant(&mut transaction, tenant).await?;
        let row = transaction.fetch_optional(READ, values![tenant, invite]).await?.ok_or(NOT_FOUND)?;
        let invite = waiting(record_of(&row)?, now).ok_or(NOT_FOUND)?;
        let (user, joined) = self.settle_invite(&mut transaction, tenant, &invite, Some(name)).await?;
        self.check_room_for_key(&mut transaction, tenant).await?;
        let (role, project) = match (invite.role, joined.first()) {
            (PersonRole::Owner, _) => (Role::Admin, None),
            (PersonRole::Reader, Some(project)) => (Role::Member, Some(*project)),
            (PersonRole::Reader, None) => (Role::Reader, None),
        };
        let owner = Some(KeyOwner::User(user.id));
        let row = NewRow { project, owner, name: user.name.clone(), ..NewRow::of(Some(tenant), role) };
        let key = self.insert_key(&mut transaction, row).await?;
        let detail = accepted_detail(&user, &joined, Some(&key));
        let recorded = self.record_administration(&mut transaction, grant, ACCEPT_INVITE.of(invite.id, detail)).await?;
        self.commit(transaction, recorded).await?;
        Ok(Joined { user, key })
    }

    /// The person of this address, for whom an issuer vouches that the tenant trusts, inside the transaction that lets it
    /// in: one of the tenant's people, or one whose invite waits, which is accepted by this. None when there is neither.
    pub(crate) async fn invited_or_present(
        &self,
        transaction: &mut Transaction,
        grant: &Granted<JoinOrganization>,
        email: &Email,
        name: Option<Label>,
    ) -> Result<Option<UserRecord>, StoreError> {
        const WAITS: &str = "SELECT id, email, role, projects, created_at, expires_at, accepted_at FROM invites
            WHERE tenant_id = $1 AND email = $2 AND accepted_at IS NULL AND expires_at > $3";
        let (tenant, now) = (grant.tenant(), self.now());
        if let Some(user) = users::present_by_email(transaction, tenant, email).await? {
            return Ok(Some(user));
        }
        let Some(row) = transaction.fetch_optional(WAITS, values![tenant, email, now]).await? else { return Ok(None) };
        let invite = record_of(&row)?;
        let (user, joined) = self.settle_invite(transaction, tenant, &invite, name).await?;
        let detail = accepted_detail(&user, &joined, None);
        // The transaction is committed with what comes after it.
        let _ = self.record_administration(transaction, grant, ACCEPT_INVITE.of(invite.id, detail)).await?;
        Ok(Some(user))
    }

    /// Adds a person whom nobody invited, as a member of the default project.
    pub(crate) async fn add_uninvited(
        &self,
        transaction: &mut Transaction,
        tenant: TenantId,
        email: Email,
        name: Option<Label>,
        role: PersonRole,
    ) -> Result<UserRecord, StoreError> {
        let now = self.now();
        let id = UserId::generate(now, random_bytes()?);
        let user = UserRecord { id, email, name, role, added_at: now, key_last_used_at: None };
        users::insert(transaction, tenant, &user).await?;
        let project = ProjectId::default_of(tenant);
        members::insert(transaction, tenant, project, user.id, ProjectRole::Member, now).await?;
        Ok(user)
    }

    /// Makes a person of an invite that waits: who it is, and which projects it belongs to. A project that was archived
    /// meanwhile is left out.
    async fn settle_invite(
        &self,
        transaction: &mut Transaction,
        tenant: TenantId,
        invite: &InviteRecord,
        name: Option<Label>,
    ) -> Result<(UserRecord, Vec<ProjectId>), StoreError> {
        const ACCEPT: &str = "UPDATE invites SET accepted_at = $3, user_id = $4 WHERE tenant_id = $1 AND id = $2";
        let now = self.now();
        let user = UserRecord {
            id: UserId::generate(now, random_bytes()?),
            email: invite.email.clone(),
            name,
            role: invite.role,
            added_at: now,
            key_last_used_at: None,
        };
        users::insert(transaction, tenant, &user).await?;
        let mut joined = Vec::new();
        for (project, role) in &invite.projects {
            match projects::living(transaction, tenant, *project).await {
                Ok(_) => {
                    members::insert(transaction, tenant, *project, user.id, *role, now).await?;
                    joined.push(*project);
                }
                Err(StoreError::Organization(OrganizationConflict::ProjectArchived)) => {}
                Err(error) => return Err(error),
            }
        }
        transaction.execute(ACCEPT, values![tenant, invite.id, now, user.id]).await?;
        Ok((user, joined))
    }
}

const READ: &str = "SELECT id, email, role, projects, created_at, expires_at, accepted_at FROM invites
    WHERE tenant_id = $1 AND id = $2";

fn waiting(invite: InviteRecord, now: Timestamp) -> Option<InviteRecord> {
    (invite.accepted_at.is_none() && now < invite.expires_at).then_some(invite)
}

/// What the trail says of somebody who came.
fn accepted_detail(user: &UserRecord, joined: &[ProjectId], key: Option<&CreatedKey>) -> Json {
    json!({
        "user": user.id.to_string(),
        "role": user.role.as_str(),
        "projects": joined.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "key": key.map(|key| key.summary.id.to_string()),
    })
}

fn projects_as_json(projects: &[(ProjectId, ProjectRole)]) -> Json {
    projects.iter().map(|(project, role)| json!({"id": project.to_string(), "role": role.as_str()})).collect()
}

fn record_of(row: &Row) -> Result<InviteRecord, StoreError> {
    let damaged = || StoreError::corrupt("the projects of an invite");
    let listed: Vec<Json> = serde_json::from_str(&row.text("projects")?).map_err(|_| damaged())?;
    let project = |entry: &Json| {
        let (id, role) = (entry["id"].as_str()?.parse().ok()?, entry["role"].as_str()?.parse().ok()?);
        Some((id, role))
    };
    Ok(InviteRecord {
        id: row.parsed("id")?,
        email: row.parsed("email")?,
        role: row.parsed("role")?,
        projects: listed.iter().map(|entry| project(entry).ok_or_else(damaged)).collect::<Result<_, _>>()?,
        created_at: row.time("created_at")?,
        expires_at: row.time("expires_at")?,
        accepted_at: row.optional_time("accepted_at")?,
    })
}

fn secret_of(row: &Row) -> Result<InviteSecret, StoreError> {
    Ok(InviteSecret {
        id: row.parsed("id")?,
        public_id: row.parsed::<PublicId>("public_id")?,
        tenant: row.parsed("tenant_id")?,
        secret_hash: row.bytes("secret_hash")?,
        expires_at: row.time("expires_at")?,
        is_suspended: row.optional_time("suspended_at")?.is_some(),
    })
}
