//! `/v1/organization/invites`: how people come. The secret of an invite is shown once, to whoever invites; who is
//! invited sends it as the key when accepting.

use atelier_domain::{InviteId, PersonRole, ProjectId, ProjectRole, Timestamp};
use atelier_platform::{Invite, InviteRecord, Platform};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::users::{self, UserObject};
use super::{ListQuery, page_object, project_users, word};
use crate::caller::Authenticated;
use crate::error::ApiError;
use crate::extract::{PathId, WireJson, WireQuery};
use crate::keys::{CreatedKeyObject, created_key_object, named};
use crate::wire::Deleted;

/// Body of `POST /v1/organization/invites`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateInviteRequest {
    /// The address of whoever is invited. Nothing is sent to it: hand over the secret, or let the person sign on.
    pub email: String,
    /// `owner` or `reader`.
    pub role: String,
    /// The projects that the person will belong to; the default project, as a member, when absent.
    pub projects: Option<Vec<InviteProject>>,
}

/// A project of an invite.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InviteProject {
    /// `proj_…`
    pub id: String,
    /// `owner` or `member`.
    pub role: String,
}

/// Body of `POST /v1/organization/invites/accept`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptInviteRequest {
    /// What to call the person.
    pub name: String,
}

/// An invite.
#[derive(Debug, Serialize, ToSchema)]
pub struct InviteObject {
    /// `invite-…`
    pub id: String,
    /// Always `organization.invite`.
    pub object: &'static str,
    /// Who is invited.
    pub email: String,
    /// `owner` or `reader`.
    pub role: &'static str,
    /// `pending`, `accepted` or `expired`.
    pub status: &'static str,
    /// Unix seconds.
    pub created_at: i64,
    /// Unix seconds.
    pub invited_at: i64,
    /// Unix seconds.
    pub expires_at: i64,
    /// Unix seconds; null while it is not accepted.
    pub accepted_at: Option<i64>,
    /// The projects that the person will belong to.
    pub projects: Vec<InviteProject>,
}

/// An invite, in the one answer that shows its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreatedInviteObject {
    /// The invite.
    #[serde(flatten)]
    pub invite: InviteObject,
    /// What accepts it, sent as a key. Only a hash of it is kept.
    pub secret: String,
}

/// Who accepted an invite.
#[derive(Serialize, ToSchema)]
pub struct JoinedObject {
    /// Always `organization.invite.accepted`.
    pub object: &'static str,
    /// The person.
    pub user: UserObject,
    /// A key of its own, shown only here.
    pub key: CreatedKeyObject,
}

page_object!(
    /// Invites, oldest first.
    InviteList of InviteObject
);

/// `POST /v1/organization/invites`.
pub async fn create_invite(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    WireJson(body): WireJson<CreateInviteRequest>,
) -> Result<Json<CreatedInviteObject>, ApiError> {
    let projects = body.projects.map(|projects| projects.iter().map(project).collect::<Result<_, _>>()).transpose()?;
    let role = word::<PersonRole>(&body.role, "role", users::ROLES)?;
    let created = platform.create_invite(&caller, Invite { email: body.email, role, projects }).await?;
    let secret = created.secret.reveal();
    Ok(Json(CreatedInviteObject { invite: object_at(created.record, platform.now()), secret }))
}

/// `GET /v1/organization/invites`.
pub async fn list_invites(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    WireQuery(query): WireQuery<ListQuery>,
) -> Result<Json<InviteList>, ApiError> {
    let page = platform.list_invites(&caller, query.check()?).await?;
    Ok(Json(InviteList::of(page, |invite| object_at(invite, platform.now()))))
}

/// `GET /v1/organization/invites/{invite_id}`.
pub async fn get_invite(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathId(invite): PathId<InviteId>,
) -> Result<Json<InviteObject>, ApiError> {
    Ok(Json(object_at(platform.get_invite(&caller, invite).await?, platform.now())))
}

/// `DELETE /v1/organization/invites/{invite_id}`.
pub async fn delete_invite(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathId(invite): PathId<InviteId>,
) -> Result<Json<Deleted>, ApiError> {
    platform.delete_invite(&caller, invite).await?;
    Ok(Json(Deleted::new(invite, "organization.invite.deleted")))
}

/// `POST /v1/organization/invites/accept`.
pub async fn accept_invite(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    WireJson(body): WireJson<AcceptInviteRequest>,
) -> Result<Json<JoinedObject>, ApiError> {
    let joined = platform.accept_invite(&caller, &body.name).await?;
    Ok(Json(JoinedObject {
        object: "organization.invite.accepted",
        user: users::object(joined.user),
        key: created_key_object(joined.key),
    }))
}

fn project(project: &InviteProject) -> Result<(ProjectId, ProjectRole), ApiError> {
    Ok((named(&project.id, "projects")?, word(&project.role, "projects", project_users::ROLES)?))
}

fn object_at(invite: InviteRecord, now: Timestamp) -> InviteObject {
    let status = match invite.accepted_at {
        Some(_) => "accepted",
        None if invite.expires_at <= now => "expired",
        None => "pending",
    };
    let projects = invite.projects.iter();
    InviteObject {
        id: invite.id.to_string(),
        object: "organization.invite",
        email: invite.email.to_string(),
        role: invite.role.as_str(),
        status,
        created_at: invite.created_at.seconds(),
        invited_at: invite.created_at.seconds(),
        expires_at: invite.expires_at.seconds(),
        accepted_at: invite.accepted_at.map(Timestamp::seconds),
        projects: projects.map(|(id, role)| InviteProject { id: id.to_string(), role: role.to_string() }).collect(),
    }
}
