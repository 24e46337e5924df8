//! Everything that can be asked for: one small struct per right, so that a function's signature says which it needs.
//! The list says of each which scope of a key it lies in.

use atelier_domain::{Scope, TenantId};

/// Something that a caller may be granted. Sealed: the rights below are all there are.
pub trait Right: Clone + std::fmt::Debug + Send + Sync + sealed::Sealed + 'static {
    /// What the policy decides about.
    const ACTION: Action;

    /// The tenant that the right is about; none for what concerns the whole installation.
    fn tenant(&self) -> Option<TenantId>;
}

/// A right about one tenant: its tenant is always there.
pub trait TenantRight: Right {
    /// The tenant that the right is about.
    fn tenant_id(&self) -> TenantId;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! rights {
    (
        of a tenant { $($(#[$tenant_doc:meta])* $of_tenant:ident => $tenant_name:literal in $tenant_scope:ident,)* }
        of the installation { $($(#[$doc:meta])* $global:ident => $name:literal in $scope:ident,)* }
    ) => {
        /// What a right is about, as the policy sees it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Action {
            $($(#[$tenant_doc])* $of_tenant,)*
            $($(#[$doc])* $global,)*
        }

        impl Action {
            /// Every action, in the order of the list.
            pub const ALL: &'static [Self] = &[$(Self::$of_tenant,)* $(Self::$global,)*];

            /// The action's name in the audit trail.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$of_tenant => $tenant_name,)*
                    $(Self::$global => $name,)*
                }
            }

            /// The scope that a key needs for it, whatever its role.
            #[must_use]
            pub fn scope(self) -> Scope {
                match self {
                    $(Self::$of_tenant => Scope::$tenant_scope,)*
                    $(Self::$global => Scope::$scope,)*
                }
            }

            /// Whether the action is about one tenant.
            #[must_use]
            pub fn is_of_a_tenant(self) -> bool {
                match self {
                    $(Self::$of_tenant => true,)*
                    $(Self::$global => false,)*
                }
            }

            /// Whether it changes nothing that is stored, so that doing it needs no event of its own in the trail.
            #[must_use]
            pub fn is_read(self) -> bool {
                self.as_str().starts_with("read_") || self.as_str().starts_with("list_")
            }

            /// Whether it shows what is in a tenant without changing it: an operator who does so in the tenant's place
            /// is on record by the check alone. Names and plans say nothing.
            #[must_use]
            pub fn shows_what_is_a_tenants(self) -> bool {
                let says_nothing = matches!(self, Self::ReadTenant | Self::ReadModels);
                self == Self::CompleteAs || (self.is_of_a_tenant() && self.is_read() && !says_nothing)
            }
        }

        $(
            $(#[$tenant_doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub struct $of_tenant {
                /// Whose.
                pub tenant: TenantId,
            }

            impl sealed::Sealed for $of_tenant {}

            impl Right for $of_tenant {
                const ACTION: Action = Action::$of_tenant;

                fn tenant(&self) -> Option<TenantId> {
                    Some(self.tenant)
                }
            }

            impl TenantRight for $of_tenant {
                fn tenant_id(&self) -> TenantId {
                    self.tenant
                }
            }
        )*

        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub struct $global;

            impl sealed::Sealed for $global {}

            impl Right for $global {
                const ACTION: Action = Action::$global;

                fn tenant(&self) -> Option<TenantId> {
                    None
                }
            }
        )*
    };
}

rights! {
    of a tenant {
        /// Run completions with the tenant's models.
        CompleteAs => "complete" in Complete,
        /// Write what a request used into the ledger.
        Meter => "meter" in Complete,
        /// List the models that the tenant may use.
        ReadModels => "read_models" in Complete,
        /// Give code to learn from, or take it away.
        WriteSources => "write_sources" in Learn,
        /// See the sources and their content.
        ReadSources => "read_sources" in Learn,
        /// Name a folder of the server's own as a source.
        ReadServerFolder => "read_server_folder" in Learn,
        /// Start a run.
        StartRun => "start_run" in Learn,
        /// Stop a run.
        CancelRun => "cancel_run" in Learn,
        /// See runs and follow their events.
        ReadRuns => "read_runs" in Read,
        /// Measure the tenant's model on code.
        Evaluate => "evaluate" in Learn,
        /// See versions and aliases.
        ReadVersions => "read_versions" in Read,
        /// Move an alias to another version.
        MoveAlias => "move_alias" in Learn,
        /// See the tenant's usage.
        ReadUsage => "read_usage" in Usage,
        /// See the tenant's audit trail.
        ReadAudit => "read_audit" in Audit,
        /// See the tenant's name and plan.
        ReadTenant => "read_tenant" in Read,
        /// Make, list, change and revoke the tenant's keys.
        ManageKeys => "manage_keys" in Manage,
        /// See the tenant's projects, people and machines.
        ReadOrganization => "read_organization" in Read,
        /// Change the tenant's projects, and take away from its people and machines.
        ManageOrganization => "manage_organization" in Manage,
        /// Give people and machines rights in the tenant: invite, raise, add to projects.
        Appoint => "appoint" in Delegate,
        /// Become one of the tenant's people: by an invite, or because an issuer that the tenant trusts says who it is.
        JoinOrganization => "join_organization" in Manage,
        /// See which issuer the tenant trusts to say who its people are.
        ReadSignOn => "read_sign_on" in Manage,
        /// Say which issuer the tenant trusts, and whom of those that it vouches for: who may, lets people in.
        ManageSignOn => "manage_sign_on" in Delegate,
        /// Let in whom the tenant's issuer vouches for, and out again.
        SignIn => "sign_in" in Manage,
        /// Change the tenant's plan, or delete it.
        ManageTenant => "manage_tenant" in Operate,
        /// Carry out a job that was claimed for the tenant.
        RunJob => "run_job" in Learn,
        /// Read an adapter's files into memory.
        LoadAdapter => "load_adapter" in Complete,
    }
    of the installation {
        /// Make a tenant.
        CreateTenant => "create_tenant" in Operate,
        /// See all tenants.
        ListTenants => "list_tenants" in Operate,
        /// See what operators did.
        ReadOperatorAudit => "read_operator_audit" in Operate,
        /// Correct the ledger by a new row.
        CorrectUsage => "correct_usage" in Operate,
        /// Find the tenant whose people somebody says to be one of, and what it was that one began.
        FindSignOn => "read_sign_on_by_name" in Operate,
        /// Claim the next job, whosever it is.
        WorkJobs => "work_jobs" in Operate,
    }
}
