//! Who there is inside a tenant: projects, people and invites, machines, and the keys that they hold.

use std::time::Duration;

use atelier_access::{Caller, Denied, Granted, KeyOwner, right};
use atelier_domain::{
    Email, InviteId, KeyId, PersonRole, ProjectId, ProjectRole, Role, Scopes, ServiceAccountId, Timestamp, UserId,
};
use atelier_store::{
    CreatedInvite, CreatedKey, HeldKey, InviteRecord, Joined, KeyOrder, Keyring, MemberRecord, NewInvite, NewKey,
    NewMachineKey, NewServiceAccount, Page, PageQuery, Person, ProjectRecord, ServiceAccountRecord, UserRecord,
};

use crate::error::PlatformError;
use crate::keys::{keys_of, label};
use crate::models::tenant_of;
use crate::platform::Platform;

/// Somebody to be invited.
#[derive(Debug, Clone)]
pub struct Invite {
    /// Who.
    pub email: String,
    /// What the person will be to the tenant.
    pub role: PersonRole,
    /// The projects that the person will belong to, and as what; a member of the default project when absent.
    pub projects: Option<Vec<(ProjectId, ProjectRole)>>,
}

/// A machine to be made.
#[derive(Debug, Clone)]
pub struct AppointMachine {
    /// What people call it.
    pub name: String,
    /// Whether it gets a key at once.
    pub with_key: bool,
    /// How long that key lives; for ever when absent.
    pub key_lifetime: Option<Duration>,
}

/// A further key of a machine.
#[derive(Debug, Clone)]
pub struct MachineKey {
    /// What people call it; as the machine when absent.
    pub name: Option<String>,
    /// What of a machine's rights it has.
    pub scopes: Scopes,
    /// How long it lives; for ever when absent.
    pub lifetime: Option<Duration>,
}

/// Projects.
impl Platform {
    /// The present time by the platform's clock, by which invites and keys end.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.store().now()
    }

    /// Makes a project of the caller's tenant.
    ///
    /// # Errors
    /// When the caller may not, the name is none, or there are too many.
    pub async fn create_project(&self, caller: &Caller, name: &str) -> Result<ProjectRecord, PlatformError> {
        Ok(self.store().create_project(&manages(caller)?, label(name)?).await?)
    }

    /// A page of the projects, oldest first; by the key of a project that project alone.
    ///
    /// # Errors
    /// When the caller may not.
    pub async fn list_projects(
        &self,
        caller: &Caller,
        query: PageQuery<ProjectId>,
        with_archived: bool,
    ) -> Result<Page<ProjectRecord>, PlatformError> {
        Ok(self.store().projects(&reads(caller)?, query, with_archived).await?)
    }

    /// One of them.
    ///
    /// # Errors
    /// When the caller may not, or there is none.
    pub async fn get_project(&self, caller: &Caller, project: ProjectId) -> Result<ProjectRecord, PlatformError> {
        Ok(self.store().project(&reads(caller)?, project).await?)
    }

    /// Calls a project otherwise; nothing changes when no name is given.
    ///
    /// # Errors
    /// When the caller may not, there is no such project, or it is archived.
    pub async fn modify_project(
        &self,
        caller: &Caller,
        project: ProjectId,
        name: Option<&str>,
    ) -> Result<ProjectRecord, PlatformError> {
        let grant = manages(caller)?;
        match name {
            Some(name) => Ok(self.store().rename_project(&grant, project, label(name)?).await?),
            None => self.get_project(caller, project).await,
        }
    }

    /// Closes a project for good; its keys are worthless within a second, open streams included.
    ///
    /// # Errors
    /// When the caller may not, there is no such project, or it cannot be archived.
    pub async fn archive_project(&self, caller: &Caller, project: ProjectId) -> Result<ProjectRecord, PlatformError> {
        Ok(self.store().archive_project(&manages(caller)?, project).await?)
    }
}

/// People.
impl Platform {
    /// A page of the people of the caller's tenant, oldest first; only those with one of these addresses, if any.
    ///
    /// # Errors
    /// When the caller may not, or one of the addresses is none.
    pub async fn list_users(
        &self,
        caller: &Caller,
        query: PageQuery<UserId>,
        emails: &[String],
    ) -> Result<Page<UserRecord>, PlatformError> {
        let grant = reads(caller)?;
        let emails: Vec<Email> = emails.iter().map(|text| email(text, "emails")).collect::<Result<_, _>>()?;
        Ok(self.store().users(&grant, query, &emails).await?)
    }

    /// One of them.
    ///
    /// # Errors
    /// When the caller may not, or there is no such person.
    pub async fn get_user(&self, caller: &Caller, user: UserId) -> Result<UserRecord, PlatformError> {
        Ok(self.store().user(&reads(caller)?, user).await?)
    }

    /// Raises or lowers a person; keys that go beyond what it is then end within a second. Nothing changes when no role
    /// is given.
    ///
    /// # Errors
    /// When the caller may not, there is no such person, or it is the last owner.
    pub async fn modify_user(
        &self,
        caller: &Caller,
        user: UserId,
        role: Option<PersonRole>,
    ) -> Result<UserRecord, PlatformError> {
        let grant = appoints(caller)?;
        match role {
            Some(role) => Ok(self.store().set_user_role(&grant, user, role).await?),
            None => self.get_user(caller, user).await,
        }
    }

    /// Removes a person and its keys, within a second and open streams included.
    ///
    /// # Errors
    /// When the caller may not, there is no such person, or it is the last owner.
    pub async fn delete_user(&self, caller: &Caller, user: UserId) -> Result<(), PlatformError> {
        Ok(self.store().remove_user(&manages(caller)?, user).await?)
    }

    /// Invites somebody to the caller's tenant.
    ///
    /// # Errors
    /// When the caller may not, the address is none, or the person is there or invited already.
    pub async fn create_invite(&self, caller: &Caller, invite: Invite) -> Result<CreatedInvite, PlatformError> {
        let grant = appoints(caller)?;
        let new = NewInvite { email: email(&invite.email, "email")?, role: invite.role, projects: invite.projects };
        Ok(self.store().create_invite(&grant, new).await?)
    }

    /// A page of the invites, oldest first.
    ///
    /// # Errors
    /// When the caller may not.
    pub async fn list_invites(
        &self,
        caller: &Caller,
        query: PageQuery<InviteId>,
    ) -> Result<Page<InviteRecord>, PlatformError> {
        Ok(self.store().invites(&reads(caller)?, query).await?)
    }

    /// One of them.
    ///
    /// # Errors
    /// When the caller may not, or there is none.
    pub async fn get_invite(&self, caller: &Caller, invite: InviteId) -> Result<InviteRecord, PlatformError> {
        Ok(self.store().invite(&reads(caller)?, invite).await?)
    }

    /// Makes an invite worthless.
    ///
    /// # Errors
    /// When the caller may not, there is none, or it was accepted.
    pub async fn delete_invite(&self, caller: &Caller, invite: InviteId) -> Result<(), PlatformError> {
        Ok(self.store().delete_invite(&manages(caller)?, invite).await?)
    }

    /// Makes the caller, who showed the secret of an invite, one of the tenant's people, with a key of its own.
    ///
    /// # Errors
    /// When the caller showed anything else, or the name is none.
    pub async fn accept_invite(&self, caller: &Caller, name: &str) -> Result<Joined, PlatformError> {
        let Some(tenant) = caller.tenant() else {
            return Err(if caller.is_anonymous() { PlatformError::NotAuthenticated } else { Denied::Hidden.into() });
        };
        let grant = caller.grant(right::JoinOrganization { tenant })?;
        Ok(self.store().accept_invite(&grant, label(name)?).await?)
    }
}

/// Who belongs to a project.
impl Platform {
    /// Adds one of the tenant's people to a project.
    ///
    /// # Errors
    /// When the caller may not, one of them is not there, or they belong together already.
    pub async fn create_project_user(
        &self,
        caller: &Caller,
        project: ProjectId,
        person: Person,
        role: ProjectRole,
    ) -> Result<MemberRecord, PlatformError> {
        Ok(self.store().add_project_user(&appoints(caller)?, project, person, role).await?)
    }

    /// A page of a project's people.
    ///
    /// # Errors
    /// When the caller may not, or there is no such project.
    pub async fn list_project_users(
        &self,
        caller: &Caller,
        project: ProjectId,
        query: PageQuery<UserId>,
    ) -> Result<Page<MemberRecord>, PlatformError> {
        Ok(self.store().project_users(&reads(caller)?, project, query).await?)
    }

    /// One of them.
    ///
    /// # Errors
    /// When the caller may not, or there is none.
    pub async fn get_project_user(
        &self,
        caller: &Caller,
        project: ProjectId,
        user: UserId,
    ) -> Result<MemberRecord, PlatformError> {
        Ok(self.store().project_user(&reads(caller)?, project, user).await?)
    }

    /// Makes a person something else to a project; nothing changes when no role is given.
    ///
    /// # Errors
    /// When the caller may not, or there is none.
    pub async fn modify_project_user(
        &self,
        caller: &Caller,
        project: ProjectId,
        user: UserId,
        role: Option<ProjectRole>,
    ) -> Result<MemberRecord, PlatformError> {
        let grant = appoints(caller)?;
        match role {
            Some(role) => Ok(self.store().set_project_user_role(&grant, project, user, role).await?),
            None => self.get_project_user(caller, project, user).await,
        }
    }

    /// Takes a person out of a project, with its keys there.
    ///
    /// # Errors
    /// When the caller may not, or there is none.
    pub async fn delete_project_user(
        &self,
        caller: &Caller,
        project: ProjectId,
        user: UserId,
    ) -> Result<(), PlatformError> {
        Ok(self.store().remove_project_user(&manages(caller)?, project, user).await?)
    }

    /// Makes a machine of a project.
    ///
    /// # Errors
    /// When the caller may not, there is no such project, or there are too many.
    pub async fn create_service_account(
        &self,
        caller: &Caller,
        project: ProjectId,
        make: AppointMachine,
    ) -> Result<(ServiceAccountRecord, Option<CreatedKey>), PlatformError> {
        let grant = appoints(caller)?;
        if !make.with_key && make.key_lifetime.is_some() {
            let message = "'expires_in_seconds' is about a key, and 'create_service_account_only' asks for none.";
            return Err(PlatformError::invalid(message, "expires_in_seconds", "invalid_value"));
        }
        let expires_at = make.key_lifetime.map(|lifetime| self.end_of(lifetime)).transpose()?;
        let key = make.with_key.then_some(NewMachineKey { expires_at });
        let new = NewServiceAccount { project, name: label(&make.name)?, key };
        Ok(self.store().create_service_account(&grant, new).await?)
    }

    /// A page of a project's machines, oldest first.
    ///
    /// # Errors
    /// When the caller may not, or there is no such project.
    pub async fn list_service_accounts(
        &self,
        caller: &Caller,
        project: ProjectId,
        query: PageQuery<ServiceAccountId>,
    ) -> Result<Page<ServiceAccountRecord>, PlatformError> {
        Ok(self.store().service_accounts(&reads(caller)?, project, query).await?)
    }

    /// One of them.
    ///
    /// # Errors
    /// When the caller may not, or there is none.
    pub async fn get_service_account(
        &self,
        caller: &Caller,
        project: ProjectId,
        account: ServiceAccountId,
    ) -> Result<ServiceAccountRecord, PlatformError> {
        Ok(self.store().service_account(&reads(caller)?, project, account).await?)
    }

    /// Calls a machine otherwise, or makes it something else to its project; what is absent stays.
    ///
    /// # Errors
    /// When the caller may not, or there is none.
    pub async fn modify_service_account(
        &self,
        caller: &Caller,
        project: ProjectId,
        account: ServiceAccountId,
        name: Option<&str>,
        role: Option<ProjectRole>,
    ) -> Result<ServiceAccountRecord, PlatformError> {
        let grant = appoints(caller)?;
        let name = name.map(label).transpose()?;
        Ok(self.store().update_service_account(&grant, project, account, name, role).await?)
    }

    /// Removes a machine and its keys.
    ///
    /// # Errors
    /// When the caller may not, or there is none.
    pub async fn delete_service_account(
        &self,
        caller: &Caller,
        project: ProjectId,
        account: ServiceAccountId,
    ) -> Result<(), PlatformError> {
        Ok(self.store().remove_service_account(&manages(caller)?, project, account).await?)
    }
}

/// Keys and who holds them.
impl Platform {
    /// Makes a further key of a machine.
    ///
    /// # Errors
    /// When the caller may not, hands out more than it may, or there is no such machine.
    pub async fn create_machine_key(
        &self,
        caller: &Caller,
        project: ProjectId,
        account: ServiceAccountId,
        make: MachineKey,
    ) -> Result<CreatedKey, PlatformError> {
        let grant = keys_of(caller)?;
        let machine = self.get_service_account(caller, project, account).await?;
        let new = NewKey {
            name: Some(make.name.as_deref().map(label).transpose()?.unwrap_or(machine.name)),
            rights: grant.hand_out(Role::Service, make.scopes)?,
            project: Some(project),
            owner: Some(KeyOwner::ServiceAccount(account)),
            expires_at: make.lifetime.map(|lifetime| self.end_of(lifetime)).transpose()?,
        };
        Ok(self.store().create_key(&grant, new).await?)
    }

    /// Makes a key that administers the tenant and completes nothing.
    ///
    /// # Errors
    /// When the caller may not, or its own key has less.
    pub async fn create_admin_key(
        &self,
        caller: &Caller,
        name: &str,
        lifetime: Option<Duration>,
    ) -> Result<CreatedKey, PlatformError> {
        let grant = keys_of(caller)?;
        let new = NewKey {
            name: Some(label(name)?),
            rights: grant.hand_out(Role::Admin, Scopes::ADMINISTRATION)?,
            project: None,
            // Whoever makes it answers for it.
            owner: caller.owner(),
            expires_at: lifetime.map(|lifetime| self.end_of(lifetime)).transpose()?,
        };
        Ok(self.store().create_key(&grant, new).await?)
    }

    /// A page of a project's keys, or of those that administer the tenant.
    ///
    /// # Errors
    /// When the caller may not, or there is no such project.
    pub async fn list_held_keys(
        &self,
        caller: &Caller,
        ring: Keyring,
        query: PageQuery<KeyId>,
        order: KeyOrder,
    ) -> Result<Page<HeldKey>, PlatformError> {
        Ok(self.store().held_keys(&keys_of(caller)?, ring, query, order).await?)
    }

    /// One of them.
    ///
    /// # Errors
    /// When the caller may not, or there is none.
    pub async fn get_held_key(&self, caller: &Caller, ring: Keyring, key: KeyId) -> Result<HeldKey, PlatformError> {
        Ok(self.store().held_key(&keys_of(caller)?, ring, key).await?)
    }

    /// Makes one of them worthless within a second, open streams included.
    ///
    /// # Errors
    /// When the caller may not, or there is none.
    pub async fn delete_held_key(&self, caller: &Caller, ring: Keyring, key: KeyId) -> Result<(), PlatformError> {
        let grant = keys_of(caller)?;
        // Which of the two it belongs to never changes but by an admin's own doing.
        self.store().held_key(&grant, ring, key).await?;
        Ok(self.store().revoke_key(&grant, key).await?)
    }
}

fn reads(caller: &Caller) -> Result<Granted<right::ReadOrganization>, PlatformError> {
    Ok(caller.grant(right::ReadOrganization { tenant: tenant_of(caller)? })?)
}

fn manages(caller: &Caller) -> Result<Granted<right::ManageOrganization>, PlatformError> {
    Ok(caller.grant(right::ManageOrganization { tenant: tenant_of(caller)? })?)
}

fn appoints(caller: &Caller) -> Result<Granted<right::Appoint>, PlatformError> {
    Ok(caller.grant(right::Appoint { tenant: tenant_of(caller)? })?)
}

fn email(text: &str, param: &'static str) -> Result<Email, PlatformError> {
    text.parse().map_err(|error: atelier_domain::ParseError| {
        PlatformError::invalid(format!("{error}."), param, "invalid_value")
    })
}
