//! Everything that is recorded: each kind of event belongs to the right by which it is done, so that it takes the proof
//! of that right to record it. The list says what an event is called in the database and on the API.

use std::marker::PhantomData;

use atelier_access::{Action, right};
use serde_json::Value as Json;

/// A kind of event. `K` is the right that it belongs to, or [`Own`].
#[derive(Debug)]
pub(crate) struct Kind<K> {
    name: &'static str,
    by: PhantomData<fn() -> K>,
}

/// An event, not yet written.
#[derive(Debug)]
pub(crate) struct Event<K> {
    pub(super) name: &'static str,
    pub(super) subject: String,
    pub(super) detail: Json,
    by: PhantomData<fn() -> K>,
}

/// What the store does, or notes, of itself.
#[derive(Debug)]
pub(crate) struct Own;

impl<K> Kind<K> {
    const fn new(name: &'static str) -> Self {
        Self { name, by: PhantomData }
    }

    /// An event of this kind. The subject is an id or a number; the detail holds no code, no prompt, no secret and no
    /// name that a tenant chose.
    pub(crate) fn of(&self, subject: impl ToString, detail: Json) -> Event<K> {
        Event { name: self.name, subject: subject.to_string(), detail, by: PhantomData }
    }
}

/// A kind of event, as it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventType {
    /// What it is called in the database.
    pub stored: &'static str,
    /// What it is called on the API: OpenAI's word where it has one.
    pub name: &'static str,
    /// The right that it belongs to; none for what the store does or notes of itself.
    pub right: Option<Action>,
}

impl EventType {
    /// The kind with this name on the API.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|known| known.name == name).copied()
    }

    /// The kind with this name in the database; none for what older versions wrote and this one does not know.
    #[must_use]
    pub fn stored_as(stored: &str) -> Option<Self> {
        Self::ALL.iter().find(|known| known.stored == stored).copied()
    }
}

macro_rules! kinds {
    (
        by right { $($(#[$doc:meta])* $kind:ident of $right:ident => $stored:literal, $name:literal;)* }
        by the store { $($(#[$own_doc:meta])* $own:ident => $own_stored:literal, $own_name:literal;)* }
    ) => {
        $($(#[$doc])* pub(crate) const $kind: Kind<right::$right> = Kind::new($stored);)*
        $($(#[$own_doc])* pub(crate) const $own: Kind<Own> = Kind::new($own_stored);)*

        impl EventType {
            /// Every kind.
            pub const ALL: &'static [Self] = &[
                $(Self { stored: $stored, name: $name, right: Some(Action::$right) },)*
                $(Self { stored: $own_stored, name: $own_name, right: None },)*
            ];
        }
    };
}

kinds! {
    by right {
        /// Code was given.
        CREATE_SOURCE of WriteSources => "create_source", "source.created";
        /// Code was taken away.
        DELETE_SOURCE of WriteSources => "delete_source", "source.deleted";
        /// A run was asked for.
        START_RUN of StartRun => "start_run", "run.created";
        /// Somebody said that a run should stop.
        CANCEL_RUN of CancelRun => "cancel_run", "run.cancelled";
        /// A run ended without a version.
        FINISH_RUN of RunJob => "finish_run", "run.finished";
        /// A run was given up because its workers died.
        QUARANTINE_JOB of RunJob => "quarantine_job", "run.quarantined";
        /// A run ended with a version that went live.
        PUBLISH_VERSION of RunJob => "publish_version", "version.published";
        /// Another version is served.
        MOVE_ALIAS of MoveAlias => "move_alias", "alias.moved";
        /// An adapter was given out.
        EXPORT_ADAPTER of ReadSources => "export_adapter", "adapter.exported";
        /// All of a tenant was given out.
        EXPORT_TENANT of ReadAudit => "export_tenant", "organization.exported";
        /// A key was made.
        CREATE_KEY of ManageKeys => "create_key", "api_key.created";
        /// A key may do something else, or is called otherwise.
        UPDATE_KEY of ManageKeys => "update_key", "api_key.updated";
        /// A key is worthless.
        REVOKE_KEY of ManageKeys => "revoke_key", "api_key.deleted";
        /// A key took the place of all other admins' keys.
        ROTATE_KEY of ManageKeys => "rotate_key", "api_key.rotated";
        /// There is a new project.
        CREATE_PROJECT of ManageOrganization => "create_project", "project.created";
        /// A project is called otherwise.
        UPDATE_PROJECT of ManageOrganization => "update_project", "project.updated";
        /// A project is closed, and its keys are worthless.
        ARCHIVE_PROJECT of ManageOrganization => "archive_project", "project.archived";
        /// Somebody was invited.
        SEND_INVITE of Appoint => "send_invite", "invite.sent";
        /// An invite is worthless.
        DELETE_INVITE of ManageOrganization => "delete_invite", "invite.deleted";
        /// Somebody who was invited is one of the tenant's people.
        ACCEPT_INVITE of JoinOrganization => "accept_invite", "invite.accepted";
        /// A person is something else to the tenant.
        UPDATE_USER of Appoint => "update_user", "user.updated";
        /// A person is gone, and with it its keys.
        DELETE_USER of ManageOrganization => "delete_user", "user.deleted";
        /// A person belongs to a project.
        ADD_PROJECT_USER of Appoint => "add_project_user", "project.user.added";
        /// A person is something else to a project.
        UPDATE_PROJECT_USER of Appoint => "update_project_user", "project.user.updated";
        /// A person does not belong to a project any more.
        DELETE_PROJECT_USER of ManageOrganization => "delete_project_user", "project.user.deleted";
        /// There is a new machine in a project.
        CREATE_SERVICE_ACCOUNT of Appoint => "create_service_account", "service_account.created";
        /// A machine is called otherwise, or is something else to its project.
        UPDATE_SERVICE_ACCOUNT of Appoint => "update_service_account", "service_account.updated";
        /// A machine is gone, and with it its keys.
        DELETE_SERVICE_ACCOUNT of ManageOrganization => "delete_service_account", "service_account.deleted";
        /// The tenant trusts an issuer to say who its people are.
        SET_SIGN_ON of ManageSignOn => "set_sign_on", "sign_on.updated";
        /// The tenant trusts none any more.
        REMOVE_SIGN_ON of ManageSignOn => "remove_sign_on", "sign_on.deleted";
        /// Somebody came uninvited, by an address of a domain that the tenant named.
        ADD_USER of SignIn => "add_user", "user.added";
        /// Somebody signed in.
        SIGN_IN of SignIn => "sign_in", "login.succeeded";
        /// Somebody was not let in.
        REFUSE_SIGN_IN of SignIn => "refuse_sign_in", "login.failed";
        /// Somebody signed out.
        SIGN_OUT of SignIn => "sign_out", "logout.succeeded";
        /// There is a new tenant.
        CREATE_TENANT of CreateTenant => "create_tenant", "organization.created";
        /// A tenant has another plan.
        SET_PLAN of ManageTenant => "set_plan", "organization.updated";
        /// A tenant may do nothing for now.
        SUSPEND_TENANT of ManageTenant => "suspend_tenant", "organization.suspended";
        /// A tenant goes on.
        RESUME_TENANT of ManageTenant => "resume_tenant", "organization.resumed";
        /// A tenant's rows are in another place.
        MOVE_TENANT of ManageTenant => "move_tenant", "organization.moved";
        /// A tenant's blobs are in another bucket.
        MOVE_BLOBS of ManageTenant => "move_blobs", "organization.blobs_moved";
        /// A tenant is no more.
        DELETE_TENANT of ManageTenant => "delete_tenant", "organization.deleted";
        /// The ledger was corrected.
        CORRECT_USAGE of CorrectUsage => "correct_usage", "usage.corrected";
    }
    by the store {
        /// The operator's first key was made.
        BOOTSTRAP => "bootstrap", "operator_key.created";
        /// An operator's key took the place of all others.
        REPLACE_OPERATOR_KEY => "replace_operator_key", "operator_key.replaced";
        /// Another root key wraps the keys of all data.
        ROTATE_ROOT_KEY => "rotate_root_key", "root_key.rotated";
        /// A tenant that a restored backup brought back is no more, as was decided before.
        ERASE_AGAIN => "erase_again", "organization.erased_again";
        /// Somebody with a key asked for what is not for that key.
        REFUSE => "refuse", "access.refused";
        /// An operator looked at what is a tenant's, in the tenant's place.
        ACT_FOR => "act_for", "access.operator";
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Rights that change something and have no event, and why.
    const WITHOUT_EVENT: [(Action, &str); 5] = [
        (Action::CompleteAs, "the usage ledger has a row for each request"),
        (Action::Meter, "it writes the usage ledger"),
        (Action::Evaluate, "an evaluation is a run: run.created and run.finished"),
        (Action::LoadAdapter, "it reads, for requests that the usage ledger has a row for"),
        (Action::WorkJobs, "a claimed job goes on by RunJob, whose end is recorded"),
    ];

    #[test]
    fn every_right_to_change_something_has_an_event() {
        for action in Action::ALL.iter().filter(|action| !action.is_read()) {
            let has_event = EventType::ALL.iter().any(|kind| kind.right == Some(*action));
            let is_excused = WITHOUT_EVENT.iter().any(|(excused, _)| excused == action);
            assert_ne!(has_event, is_excused, "{action:?}: give it an event, or say why it needs none");
        }
    }

    #[test]
    fn every_kind_has_names_of_its_own() {
        let names: BTreeSet<_> = EventType::ALL.iter().map(|kind| kind.name).collect();
        let stored: BTreeSet<_> = EventType::ALL.iter().map(|kind| kind.stored).collect();
        assert_eq!((names.len(), stored.len()), (EventType::ALL.len(), EventType::ALL.len()));
        for kind in EventType::ALL {
            assert_eq!(EventType::named(kind.name), Some(*kind));
            assert_eq!(EventType::stored_as(kind.stored), Some(*kind));
        }
    }
}
