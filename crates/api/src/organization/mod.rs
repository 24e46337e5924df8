//! `/v1/organization`: projects, people, invites, machines and keys of a tenant, in the shape of OpenAI's admin API, so
//! that the unmodified client's `client.admin.organization` manages them.
//!
//! A file for each resource; here is what they share, and the list of their endpoints.

pub mod admin_keys;
pub mod invites;
pub mod project_keys;
pub mod project_users;
pub mod projects;
pub mod service_accounts;
pub mod users;

use std::str::FromStr;

use atelier_domain::limits::{PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX};
use atelier_platform::PageQuery;
use axum::http::StatusCode;
use axum::routing::{delete, get, post};
use serde::Deserialize;

use crate::endpoint::{Access, Endpoint};
use crate::error::ApiError;
use crate::keys::named;
use crate::wire::Deleted;

/// Query of a list.
#[derive(Debug, Default, Deserialize)]
pub struct ListQuery {
    after: Option<String>,
    limit: Option<usize>,
}

impl ListQuery {
    /// The part of the list that it asks for.
    fn check<I: FromStr>(&self) -> Result<PageQuery<I>, ApiError> {
        page_query(self.after.as_deref(), self.limit)
    }
}

/// The part of a list that a query asks for.
fn page_query<I: FromStr>(after: Option<&str>, limit: Option<usize>) -> Result<PageQuery<I>, ApiError> {
    let limit = limit.unwrap_or(PAGE_ROWS_DEFAULT);
    if limit == 0 || limit > PAGE_ROWS_MAX {
        let message = format!("'limit' lies between 1 and {PAGE_ROWS_MAX}.");
        return Err(ApiError::invalid(message, Some("limit"), Some("invalid_value")));
    }
    Ok(PageQuery { after: after.map(|id| named(id, "after")).transpose()?, limit })
}

/// A word of a fixed set.
fn word<T: FromStr>(text: &str, param: &'static str, known: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_| ApiError::invalid(format!("'{param}' is {known}."), Some(param), Some("invalid_value")))
}

/// Declares a page of a list: `{"object": "list", "data": […], "first_id", "last_id", "has_more"}`.
macro_rules! page_object {
    ($(#[$doc:meta])* $name:ident of $item:ty) => {
        $(#[$doc])*
        #[derive(Debug, serde::Serialize, utoipa::ToSchema)]
        pub struct $name {
            /// Always `list`.
            pub object: &'static str,
            /// The items.
            pub data: Vec<$item>,
            /// The first item's id.
            pub first_id: Option<String>,
            /// The last item's id: `after` of the next page.
            pub last_id: Option<String>,
            /// Whether there are more.
            pub has_more: bool,
        }

        impl $name {
            fn of<T>(page: atelier_platform::Page<T>, object: impl Fn(T) -> $item) -> Self {
                let data: Vec<$item> = page.items.into_iter().map(object).collect();
                let id = |item: Option<&$item>| item.map(|item| item.id.clone());
                Self { object: "list", first_id: id(data.first()), last_id: id(data.last()), data, has_more: page.has_more }
            }
        }
    };
}
use page_object;

/// Every endpoint about a tenant's projects, people and machines.
pub fn endpoints() -> Vec<Endpoint> {
    [of_projects(), of_people(), of_project_users(), of_service_accounts(), of_keys()].into_iter().flatten().collect()
}

fn listed(endpoint: Endpoint) -> Endpoint {
    endpoint
        .query("after", "Only what comes after this one: `last_id` of the page before")
        .query("limit", "Items per page: 1 to 100, 20 when absent")
}

fn of_projects() -> Vec<Endpoint> {
    use Access::TenantAdmin;
    const ALL: &str = "/v1/organization/projects";
    const ONE: &str = "/v1/organization/projects/{project_id}";
    vec![
        Endpoint::new("create_project", TenantAdmin, post(projects::create_project), ALL)
            .about("Makes a project, which keys, their holders and their use are told apart by")
            .takes::<projects::CreateProjectRequest>()
            .gives::<projects::ProjectObject>(StatusCode::OK),
        listed(Endpoint::new("list_projects", TenantAdmin, get(projects::list_projects), ALL))
            .about("The projects, oldest first; with the key of a project, that one alone")
            .query("include_archived", "true: archived ones too")
            .gives::<projects::ProjectList>(StatusCode::OK),
        Endpoint::new("get_project", TenantAdmin, get(projects::get_project), ONE)
            .about("One project")
            .gives::<projects::ProjectObject>(StatusCode::OK),
        Endpoint::new("modify_project", TenantAdmin, post(projects::modify_project), ONE)
            .about("Calls a project otherwise")
            .takes::<projects::ModifyProjectRequest>()
            .gives::<projects::ProjectObject>(StatusCode::OK),
        Endpoint::new(
            "archive_project",
            TenantAdmin,
            post(projects::archive_project),
            "/v1/organization/projects/{project_id}/archive",
        )
        .about("Closes a project for good; its keys are worthless within a second, open streams included")
        .gives::<projects::ProjectObject>(StatusCode::OK),
    ]
}

fn of_people() -> Vec<Endpoint> {
    use Access::{Invited, TenantAdmin};
    const USERS: &str = "/v1/organization/users";
    const USER: &str = "/v1/organization/users/{user_id}";
    const INVITES: &str = "/v1/organization/invites";
    const INVITE: &str = "/v1/organization/invites/{invite_id}";
    vec![
        listed(Endpoint::new("list_users", TenantAdmin, get(users::list_users), USERS))
            .about("The people of the organization, oldest first")
            .query("emails", "Only people with these addresses; may be repeated")
            .gives::<users::UserList>(StatusCode::OK),
        Endpoint::new("get_user", TenantAdmin, get(users::get_user), USER)
            .about("One of them")
            .gives::<users::UserObject>(StatusCode::OK),
        Endpoint::new("modify_user", TenantAdmin, post(users::modify_user), USER)
            .about("Raises or lowers a person; keys that go beyond what it is then end within a second")
            .takes::<users::ModifyUserRequest>()
            .gives::<users::UserObject>(StatusCode::OK),
        Endpoint::new("delete_user", TenantAdmin, delete(users::delete_user), USER)
            .about("Removes a person and its keys, within a second and open streams included")
            .gives::<Deleted>(StatusCode::OK),
        Endpoint::new("create_invite", TenantAdmin, post(invites::create_invite), INVITES)
            .about("Invites somebody; the secret that accepts it is shown only here")
            .takes::<invites::CreateInviteRequest>()
            .gives::<invites::CreatedInviteObject>(StatusCode::OK),
        listed(Endpoint::new("list_invites", TenantAdmin, get(invites::list_invites), INVITES))
            .about("The invites, oldest first")
            .gives::<invites::InviteList>(StatusCode::OK),
        Endpoint::new("get_invite", TenantAdmin, get(invites::get_invite), INVITE)
            .about("One of them")
            .gives::<invites::InviteObject>(StatusCode::OK),
        Endpoint::new("delete_invite", TenantAdmin, delete(invites::delete_invite), INVITE)
            .about("Makes an invite worthless")
            .gives::<Deleted>(StatusCode::OK),
        Endpoint::new("accept_invite", Invited, post(invites::accept_invite), "/v1/organization/invites/accept")
            .about(
                "With an invite's secret as the key: becomes one of the organization's people, with a key of one's own",
            )
            .takes::<invites::AcceptInviteRequest>()
            .gives::<invites::JoinedObject>(StatusCode::OK),
    ]
}

fn of_project_users() -> Vec<Endpoint> {
    use Access::TenantAdmin;
    const ALL: &str = "/v1/organization/projects/{project_id}/users";
    const ONE: &str = "/v1/organization/projects/{project_id}/users/{user_id}";
    vec![
        Endpoint::new("create_project_user", TenantAdmin, post(project_users::create_project_user), ALL)
            .about("Adds one of the organization's people to a project, by id or by address")
            .takes::<project_users::CreateProjectUserRequest>()
            .gives::<project_users::ProjectUserObject>(StatusCode::OK),
        listed(Endpoint::new("list_project_users", TenantAdmin, get(project_users::list_project_users), ALL))
            .about("The people of a project")
            .gives::<project_users::ProjectUserList>(StatusCode::OK),
        Endpoint::new("get_project_user", TenantAdmin, get(project_users::get_project_user), ONE)
            .about("One of them")
            .gives::<project_users::ProjectUserObject>(StatusCode::OK),
        Endpoint::new("modify_project_user", TenantAdmin, post(project_users::modify_project_user), ONE)
            .about("Makes a person something else to a project")
            .takes::<project_users::ModifyProjectUserRequest>()
            .gives::<project_users::ProjectUserObject>(StatusCode::OK),
        Endpoint::new("delete_project_user", TenantAdmin, delete(project_users::delete_project_user), ONE)
            .about("Takes a person out of a project, with its keys there")
            .gives::<Deleted>(StatusCode::OK),
    ]
}

fn of_service_accounts() -> Vec<Endpoint> {
    use Access::TenantAdmin;
    const ALL: &str = "/v1/organization/projects/{project_id}/service_accounts";
    const ONE: &str = "/v1/organization/projects/{project_id}/service_accounts/{service_account_id}";
    vec![
        Endpoint::new("create_service_account", TenantAdmin, post(service_accounts::create_service_account), ALL)
            .about("Makes a machine of a project, with a key that is shown only here")
            .takes::<service_accounts::CreateServiceAccountRequest>()
            .gives::<service_accounts::CreatedServiceAccountObject>(StatusCode::OK),
        listed(Endpoint::new("list_service_accounts", TenantAdmin, get(service_accounts::list_service_accounts), ALL))
            .about("The machines of a project, oldest first")
            .gives::<service_accounts::ServiceAccountList>(StatusCode::OK),
        Endpoint::new("get_service_account", TenantAdmin, get(service_accounts::get_service_account), ONE)
            .about("One of them")
            .gives::<service_accounts::ServiceAccountObject>(StatusCode::OK),
        Endpoint::new("modify_service_account", TenantAdmin, post(service_accounts::modify_service_account), ONE)
            .about("Calls a machine otherwise, or makes it something else to its project")
            .takes::<service_accounts::ModifyServiceAccountRequest>()
            .gives::<service_accounts::ServiceAccountObject>(StatusCode::OK),
        Endpoint::new("delete_service_account", TenantAdmin, delete(service_accounts::delete_service_account), ONE)
            .about("Removes a machine and its keys, within a second and open streams included")
            .gives::<Deleted>(StatusCode::OK),
        Endpoint::new(
            "create_service_account_key",
            TenantAdmin,
            post(service_accounts::create_service_account_key),
            "/v1/organization/projects/{project_id}/service_accounts/{service_account_id}/api_keys",
        )
        .about("Makes a further key of a machine, shown only here")
        .takes::<service_accounts::CreateServiceAccountKeyRequest>()
        .gives::<service_accounts::ServiceAccountKeyObject>(StatusCode::OK),
    ]
}

fn of_keys() -> Vec<Endpoint> {
    use Access::TenantAdmin;
    const PROJECT_ALL: &str = "/v1/organization/projects/{project_id}/api_keys";
    const PROJECT_ONE: &str = "/v1/organization/projects/{project_id}/api_keys/{key_id}";
    const ADMIN_ALL: &str = "/v1/organization/admin_api_keys";
    const ADMIN_ONE: &str = "/v1/organization/admin_api_keys/{key_id}";
    vec![
        listed(Endpoint::new("list_project_keys", TenantAdmin, get(project_keys::list_project_keys), PROJECT_ALL))
            .about("The living keys of a project, oldest first")
            .query("owner_project_access", "`active` and `any` list all; `inactive` none, since such keys are revoked")
            .gives::<project_keys::ProjectKeyList>(StatusCode::OK),
        Endpoint::new("get_project_key", TenantAdmin, get(project_keys::get_project_key), PROJECT_ONE)
            .about("One of them")
            .gives::<project_keys::ProjectKeyObject>(StatusCode::OK),
        Endpoint::new("delete_project_key", TenantAdmin, delete(project_keys::delete_project_key), PROJECT_ONE)
            .about("Revokes a key of a project within a second, open streams included")
            .gives::<Deleted>(StatusCode::OK),
        Endpoint::new("create_admin_key", TenantAdmin, post(admin_keys::create_admin_key), ADMIN_ALL)
            .about("Makes a key that administers the organization and completes nothing; shown only here")
            .takes::<admin_keys::CreateAdminKeyRequest>()
            .gives::<admin_keys::CreatedAdminKeyObject>(StatusCode::OK),
        listed(Endpoint::new("list_admin_keys", TenantAdmin, get(admin_keys::list_admin_keys), ADMIN_ALL))
            .about("The living keys of admins")
            .query("order", "asc: oldest first, the default; desc: newest first")
            .gives::<admin_keys::AdminKeyList>(StatusCode::OK),
        Endpoint::new("get_admin_key", TenantAdmin, get(admin_keys::get_admin_key), ADMIN_ONE)
            .about("One of them")
            .gives::<admin_keys::AdminKeyObject>(StatusCode::OK),
        Endpoint::new("delete_admin_key", TenantAdmin, delete(admin_keys::delete_admin_key), ADMIN_ONE)
            .about("Revokes an admin's key within a second")
            .gives::<Deleted>(StatusCode::OK),
    ]
}
