//! Who may call which endpoint, drawn from the policy: `x-roles` of the OpenAPI document, from which
//! `docs/access-matrix.md` is made. A test sends every request with every role's key and compares.

use atelier_access::policy::allows;
use atelier_access::{Action, Standing};

use crate::endpoint::{Access, Endpoint};

/// The callers of the matrix and their names there: all that have a key, least first.
const ROLES: [(Standing, &str); 8] = [
    (Standing::Stranger, "stranger"),
    (Standing::Invited, "invited"),
    (Standing::Reader, "reader"),
    (Standing::Service, "service"),
    (Standing::Member, "member"),
    (Standing::Admin, "admin"),
    (Standing::Operator, "operator"),
    (Standing::OperatorActing, "operator acting"),
];

/// Who is let in where no key is asked for.
const ANYONE: &str = "anyone";

/// What the endpoint asks of the policy; nothing where nobody said so, which a test finds.
fn asks(operation: &str) -> Option<&'static [Action]> {
    use Action as A;
    Some(match operation {
        "create_completion" => &[A::CompleteAs],
        "list_models" | "get_model" => &[A::ReadModels],
        "create_source" | "delete_source" => &[A::WriteSources],
        "list_sources" | "get_source" => &[A::ReadSources],
        "create_run" => &[A::StartRun],
        "list_runs" | "get_run" | "list_run_events" => &[A::ReadRuns],
        "cancel_run" => &[A::CancelRun],
        "list_versions" => &[A::ReadVersions],
        "export_organization" => {
            &[A::ReadTenant, A::ReadSources, A::ReadRuns, A::ReadVersions, A::ReadUsage, A::ReadAudit]
        }
        "export_adapter" => &[A::ReadSources, A::ReadVersions],
        "move_alias" => &[A::MoveAlias],
        "usage_completions" => &[A::ReadUsage],
        "list_audit_logs" | "verify_audit_logs" => &[A::ReadAudit],
        "list_operator_audit_logs" | "verify_operator_audit_logs" => &[A::ReadOperatorAudit],
        "list_projects" | "get_project" | "list_users" | "get_user" | "list_invites" | "get_invite" => {
            &[A::ReadOrganization]
        }
        "list_project_users" | "get_project_user" | "list_service_accounts" | "get_service_account" => {
            &[A::ReadOrganization]
        }
        "create_project" | "modify_project" | "archive_project" => &[A::ManageOrganization],
        "delete_user" | "delete_invite" | "delete_project_user" | "delete_service_account" => &[A::ManageOrganization],
        "modify_user" | "create_invite" | "create_project_user" | "modify_project_user" => &[A::Appoint],
        "create_service_account" | "modify_service_account" => &[A::Appoint],
        "get_sign_on" | "check_sign_on" => &[A::ReadSignOn],
        "set_sign_on" | "delete_sign_on" => &[A::ManageSignOn],
        "get_session" | "delete_session" => &[A::ReadTenant],
        "accept_invite" => &[A::JoinOrganization],
        "create_service_account_key" => &[A::ManageKeys, A::ReadOrganization],
        "list_project_keys" | "get_project_key" | "delete_project_key" => &[A::ManageKeys],
        "create_admin_key" | "list_admin_keys" | "get_admin_key" | "delete_admin_key" => &[A::ManageKeys],
        "create_tenant" => &[A::CreateTenant],
        "list_tenants" | "list_erasures" => &[A::ListTenants],
        "get_tenant" => &[A::ReadTenant],
        "update_tenant" | "delete_tenant" => &[A::ManageTenant],
        "create_key" | "list_keys" | "get_key" | "update_key" | "delete_key" | "rotate_key" => &[A::ManageKeys],
        _ => return None,
    })
}

/// The roles that the endpoint lets in; nothing where nobody said what it asks for.
pub(crate) fn roles(endpoint: &Endpoint) -> Option<Vec<&'static str>> {
    if endpoint.access() == Access::Anyone {
        return Some(vec![ANYONE]);
    }
    let actions = asks(endpoint.operation())?;
    let of_tenant = actions.iter().any(|action| action.is_of_a_tenant());
    let lets_in = |standing: Standing| match standing {
        // An endpoint that names no tenant is about the caller's own, and an operator has none until it says so.
        Standing::Operator if of_tenant && !endpoint.path().contains("{tenant}") => false,
        // To the installation an operator is the same whomever it acts for.
        Standing::OperatorActing if !of_tenant => actions.iter().all(|action| allows(Standing::Operator, *action)),
        _ => actions.iter().all(|action| allows(standing, *action)),
    };
    Some(ROLES.into_iter().filter(|(standing, _)| lets_in(*standing)).map(|(_, role)| role).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::endpoints;

    #[test]
    fn every_endpoint_says_what_it_asks_for() {
        for endpoint in endpoints() {
            let roles = roles(&endpoint);
            let roles = roles.unwrap_or_else(|| panic!("{}: give it a line of `asks`", endpoint.operation()));
            assert!(!roles.is_empty(), "{}: nobody may call it", endpoint.operation());
            assert!(!roles.contains(&"stranger"), "{}", endpoint.operation());
            // The document's word for the least standing agrees with the policy.
            let least = match endpoint.access() {
                Access::Anyone => ANYONE,
                Access::Tenant => "member",
                Access::TenantAdmin => "admin",
                Access::Operator => "operator",
                Access::Invited => "invited",
            };
            assert!(roles.contains(&least), "{}: {roles:?} lacks {least}", endpoint.operation());
            let spares_members = endpoint.access() != Access::TenantAdmin || !roles.contains(&"member");
            let not_for_admins = matches!(endpoint.access(), Access::Operator | Access::Invited);
            let spares_admins = !not_for_admins || !roles.contains(&"admin");
            assert!(spares_members && spares_admins, "{}: {roles:?}", endpoint.operation());
        }
    }
}
