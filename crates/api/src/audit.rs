//! `/v1/organization/audit_logs`: a tenant's audit trail in the shape of OpenAI's API, so that the unmodified client's
//! `client.admin.organization.audit_logs` reads it; `/v1/operator/audit_logs`: the installation's; and for both, whether
//! they are what was written.

use atelier_access::KeyOwner;
use atelier_domain::{AuditEventId, KeyId, ProjectId, ServiceAccountId, Timestamp, UserId, limits};
use atelier_platform::{AuditPage, AuditQuery, AuditRecord, Break, ChainReport, EventType, Platform};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::caller::Authenticated;
use crate::error::ApiError;
use crate::extract::WireQuery;
use crate::keys::named;

/// Bytes of one value of `resource_ids`: an id or a number.
const RESOURCE_ID_BYTES_MAX: usize = 100;

/// The query, as OpenAI's clients send it: lists with or without brackets in the name.
#[derive(Debug, Deserialize)]
pub struct AuditLogsRequest {
    #[serde(rename = "effective_at[gt]")]
    later_than: Option<i64>,
    #[serde(rename = "effective_at[gte]")]
    from: Option<i64>,
    #[serde(rename = "effective_at[lt]")]
    earlier_than: Option<i64>,
    #[serde(rename = "effective_at[lte]")]
    to: Option<i64>,
    #[serde(default, alias = "event_types[]")]
    event_types: Vec<String>,
    #[serde(default, alias = "actor_ids[]")]
    actor_ids: Vec<String>,
    #[serde(default, alias = "actor_emails[]")]
    actor_emails: Vec<String>,
    #[serde(default, alias = "project_ids[]")]
    project_ids: Vec<String>,
    #[serde(default, alias = "resource_ids[]")]
    resource_ids: Vec<String>,
    tenant_only: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
    before: Option<String>,
}

/// A page of events, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditLogList {
    /// Always `list`.
    pub object: &'static str,
    /// The events.
    pub data: Vec<AuditLogObject>,
    /// The first event's id.
    pub first_id: Option<String>,
    /// The last event's id: `after` of the next page.
    pub last_id: Option<String>,
    /// Whether there are more.
    pub has_more: bool,
}

/// An event. What it is about stands in a further field, named like its `type`: an `id`, and `data` or
/// `changes_requested`.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditLogObject {
    /// `audit_log-…`
    pub id: String,
    /// Always `audit_log`.
    pub object: &'static str,
    /// What happened, such as `api_key.created`.
    pub r#type: String,
    /// Unix seconds.
    pub effective_at: i64,
    /// Who did it.
    pub actor: AuditActorObject,
    /// The project of the key by which it was done.
    pub project: Option<AuditProjectObject>,
    /// The tenant that it is about; null for the installation.
    pub organization_id: Option<String>,
    /// The chain that it stands in: `work` (code and models), `administration` (the tenant, its keys and people) or
    /// `operator` (the installation).
    pub chain: &'static str,
    /// Its place in the chain, from 1 upwards; 0 for one from before there were chains.
    pub sequence: u64,
    /// Its hash, which commits to all before it; null for one from before there were hashes.
    pub hash: Option<String>,
    #[serde(flatten)]
    #[schema(ignore)]
    details: Map<String, Value>,
}

/// Who did something.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditActorObject {
    /// `api_key`, or `system` for work without a person.
    pub r#type: &'static str,
    /// The key.
    pub api_key: Option<AuditKeyObject>,
    /// `operator`, `admin`, `member`, `service`, `reader` or `system`.
    pub role: String,
    /// The tenant in whose place an operator did it.
    pub acting_for: Option<String>,
}

/// The key by which something was done.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditKeyObject {
    /// `key_…`
    pub id: String,
    /// `user` or `service_account`; null where nobody is known to hold it.
    pub r#type: Option<&'static str>,
    /// The person who held it.
    pub user: Option<AuditHolderObject>,
    /// The machine that held it.
    pub service_account: Option<AuditHolderObject>,
}

/// Who held a key.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditHolderObject {
    /// The person's or the machine's id.
    pub id: String,
}

/// A project.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditProjectObject {
    /// `proj_…`
    pub id: String,
}

/// Whether trails are what was written.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditVerificationObject {
    /// Always `audit_log.verification`.
    pub object: &'static str,
    /// Whether every chain is whole.
    pub whole: bool,
    /// Events that are as they were written.
    pub events: u64,
    /// The chains.
    pub chains: Vec<AuditChainObject>,
}

/// What a check of one chain found.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditChainObject {
    /// `work`, `administration` or `operator`.
    pub chain: &'static str,
    /// Whose it is; null for the installation's.
    pub organization_id: Option<String>,
    /// Whether it is whole.
    pub whole: bool,
    /// Events that are as they were written, up to the first that is not.
    pub events: u64,
    /// The hash of the last of them. Noted elsewhere, it shows later that nothing before it was rolled back.
    pub hash: String,
    /// Where the chain is broken.
    pub broken: Option<AuditBreakObject>,
}

/// Where a chain is not whole.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditBreakObject {
    /// The place in the chain.
    pub sequence: u64,
    /// The event there, where there is one.
    pub event_id: Option<String>,
    /// What is wrong.
    pub reason: &'static str,
}

/// `GET /v1/organization/audit_logs`.
pub async fn list_audit_logs(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    WireQuery(request): WireQuery<AuditLogsRequest>,
) -> Result<Json<AuditLogList>, ApiError> {
    Ok(Json(page_object(platform.list_audit(&caller, &request.check()?).await?)))
}

/// `GET /v1/organization/audit_logs/verification`.
pub async fn verify_audit_logs(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
) -> Result<Json<AuditVerificationObject>, ApiError> {
    Ok(Json(verification_object(&platform.verify_audit(&caller).await?)))
}

/// `GET /v1/operator/audit_logs`.
pub async fn list_operator_audit_logs(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    WireQuery(request): WireQuery<AuditLogsRequest>,
) -> Result<Json<AuditLogList>, ApiError> {
    Ok(Json(page_object(platform.list_operator_audit(&caller, &request.check()?).await?)))
}

/// `GET /v1/operator/audit_logs/verification`.
pub async fn verify_operator_audit_logs(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
) -> Result<Json<AuditVerificationObject>, ApiError> {
    Ok(Json(verification_object(&platform.verify_operator_audit(&caller).await?)))
}

impl AuditLogsRequest {
    fn check(self) -> Result<AuditQuery, ApiError> {
        let limit = self.limit.unwrap_or(limits::AUDIT_PAGE_ROWS_DEFAULT);
        if limit == 0 || limit > limits::AUDIT_PAGE_ROWS_MAX {
            let message = format!("'limit' lies between 1 and {}.", limits::AUDIT_PAGE_ROWS_MAX);
            return Err(invalid("limit", message));
        }
        if !self.actor_emails.is_empty() {
            return Err(unsupported("actor_emails", "Events are not found by email. Use 'actor_ids'."));
        }
        if self.tenant_only.as_deref().is_some_and(|value| value != "false") {
            return Err(unsupported("tenant_only", "There are no such events here. Leave 'tenant_only' out."));
        }
        let lists = [&self.event_types, &self.actor_ids, &self.project_ids, &self.resource_ids];
        let names = ["event_types", "actor_ids", "project_ids", "resource_ids"];
        for (list, name) in lists.into_iter().zip(names) {
            if list.len() > limits::AUDIT_FILTER_VALUES_MAX {
                return Err(invalid(name, format!("'{name}' takes {} values.", limits::AUDIT_FILTER_VALUES_MAX)));
            }
        }
        let (from, until) = self.range();
        Ok(AuditQuery {
            after: self.after.as_deref().map(|id| named::<AuditEventId>(id, "after")).transpose()?,
            before: self.before.as_deref().map(|id| named::<AuditEventId>(id, "before")).transpose()?,
            from,
            until,
            types: self.event_types.iter().map(|name| event_type(name)).collect::<Result<_, _>>()?,
            actors: self.actor_ids.into_iter().map(actor_id).collect::<Result<_, _>>()?,
            projects: self
                .project_ids
                .iter()
                .map(|id| named::<ProjectId>(id, "project_ids"))
                .collect::<Result<_, _>>()?,
            subjects: self.resource_ids.into_iter().map(resource_id).collect::<Result<_, _>>()?,
            limit,
        })
    }

    /// The stretch of time, from the first moment in it to the first after it: bounds are whole seconds.
    fn range(&self) -> (Option<Timestamp>, Option<Timestamp>) {
        let after = |second: i64| second.saturating_add(1);
        let from = self.from.into_iter().chain(self.later_than.map(after)).max();
        let until = self.earlier_than.into_iter().chain(self.to.map(after)).min();
        (from.map(Timestamp::from_seconds), until.map(Timestamp::from_seconds))
    }
}

fn invalid(name: &'static str, message: impl Into<String>) -> ApiError {
    ApiError::invalid(message, Some(name), Some("invalid_value"))
}

fn unsupported(name: &'static str, message: &str) -> ApiError {
    ApiError::invalid(message, Some(name), Some("unsupported_parameter"))
}

fn event_type(name: &str) -> Result<EventType, ApiError> {
    EventType::named(name).ok_or_else(|| {
        let known: Vec<&str> = EventType::ALL.iter().map(|kind| kind.name).collect();
        invalid("event_types", format!("No event here is of that type. There are: {}.", known.join(", ")))
    })
}

/// The id of a key, a person or a machine.
fn actor_id(id: String) -> Result<String, ApiError> {
    let is_one = id.parse::<KeyId>().is_ok() || id.parse::<UserId>().is_ok() || id.parse::<ServiceAccountId>().is_ok();
    if is_one { Ok(id) } else { Err(invalid("actor_ids", "That is not the id of a key, a person or a machine.")) }
}

fn resource_id(id: String) -> Result<String, ApiError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !id.is_empty() && id.len() <= RESOURCE_ID_BYTES_MAX && id.bytes().all(is_plain) {
        Ok(id)
    } else {
        Err(invalid("resource_ids", "That is not the id of anything."))
    }
}

fn page_object(page: AuditPage) -> AuditLogList {
    let data: Vec<AuditLogObject> = page.records.into_iter().map(event_object).collect();
    AuditLogList {
        object: "list",
        first_id: data.first().map(|event| event.id.clone()),
        last_id: data.last().map(|event| event.id.clone()),
        data,
        has_more: page.has_more,
    }
}

fn event_object(record: AuditRecord) -> AuditLogObject {
    let kind = EventType::stored_as(&record.action).map_or(record.action, |kind| kind.name.to_owned());
    let data_field = if kind.ends_with(".updated") { "changes_requested" } else { "data" };
    let mut details = Map::new();
    details.insert(kind.clone(), json!({"id": record.subject, data_field: record.detail}));
    let words: Vec<&str> = record.actor.text.split(' ').collect();
    let (user, account) = match record.actor.owner {
        Some(KeyOwner::User(user)) => (Some(AuditHolderObject { id: user.to_string() }), None),
        Some(KeyOwner::ServiceAccount(account)) => (None, Some(AuditHolderObject { id: account.to_string() })),
        None => (None, None),
    };
    let holder = user.as_ref().map(|_| "user").or(account.as_ref().map(|_| "service_account"));
    let api_key = record.actor.key.map(|key| AuditKeyObject {
        id: key.to_string(),
        r#type: holder,
        user,
        service_account: account,
    });
    AuditLogObject {
        id: record.id.to_string(),
        object: "audit_log",
        r#type: kind,
        effective_at: record.at.seconds(),
        actor: AuditActorObject {
            r#type: if api_key.is_some() { "api_key" } else { "system" },
            api_key,
            role: words.first().map(ToString::to_string).unwrap_or_default(),
            // As an acting operator prints: `operator KEY for TENANT`.
            acting_for: (words.get(2) == Some(&"for")).then(|| words.get(3).map(ToString::to_string)).flatten(),
        },
        project: record.project.map(|project| AuditProjectObject { id: project.to_string() }),
        organization_id: record.tenant.map(|tenant| tenant.to_string()),
        chain: record.chain.as_str(),
        sequence: record.sequence,
        hash: record.hash.map(|hash| hash.to_string()),
        details,
    }
}

fn verification_object(reports: &[ChainReport]) -> AuditVerificationObject {
    let chains = reports.iter().map(|report| AuditChainObject {
        chain: report.kind.as_str(),
        organization_id: report.tenant.map(|tenant| tenant.to_string()),
        whole: report.broken.is_none(),
        events: report.events,
        hash: report.hash.to_string(),
        broken: report.broken.map(|Break { sequence, event, fault }| AuditBreakObject {
            sequence,
            event_id: event.map(|event| event.to_string()),
            reason: fault.as_str(),
        }),
    });
    AuditVerificationObject {
        object: "audit_log.verification",
        whole: reports.iter().all(|report| report.broken.is_none()),
        events: reports.iter().map(|report| report.events).sum(),
        chains: chains.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(query: &str, expected: Result<(Option<i64>, Option<i64>), &str>) {
        let request: AuditLogsRequest = serde_html_form::from_str(query).unwrap();
        let seconds = |at: Option<Timestamp>| at.map(Timestamp::seconds);
        let found = request.check().map(|query| (seconds(query.from), seconds(query.until)));
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{query}"),
            (Err(error), Err(param)) => assert_eq!(error.body().error.param.as_deref(), Some(param), "{query}"),
            (found, expected) => panic!("{query}: {found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn queries_are_read_as_openais_clients_send_them() {
        let key = "key_0190d1f2a3b47c5d8e9f001122334455";
        check("", Ok((None, None)));
        check("effective_at%5Bgte%5D=10&effective_at[lt]=20", Ok((Some(10), Some(20))));
        check("effective_at[gt]=10&effective_at[lte]=20", Ok((Some(11), Some(21))));
        check(
            "effective_at[gt]=10&effective_at[gte]=15&effective_at[lte]=20&effective_at[lt]=18",
            Ok((Some(15), Some(18))),
        );
        check("effective_at[gt]=9223372036854775807", Ok((Some(i64::MAX / 1_000_000), None)));
        check("event_types[]=api_key.created&event_types[]=api_key.deleted", Ok((None, None)));
        check("event_types=nothing.happened", Err("event_types"));
        check(&format!("actor_ids[]={key}"), Ok((None, None)));
        check("actor_ids[]=acme", Err("actor_ids"));
        check("actor_emails[]=a@b.c", Err("actor_emails"));
        check("project_ids[]=x", Err("project_ids"));
        check("resource_ids[]=3", Ok((None, None)));
        check("resource_ids[]=a%25b", Err("resource_ids"));
        check("tenant_only=true", Err("tenant_only"));
        check("limit=0", Err("limit"));
        check("limit=101", Err("limit"));
        check("after=x", Err("after"));
        check("before=audit_log-", Err("before"));
        let event = "audit_log-0190d1f2a3b47c5d8e9f001122334455";
        check(&format!("after={event}&before={event}"), Ok((None, None)));
        let many: Vec<String> = (0..=limits::AUDIT_FILTER_VALUES_MAX).map(|_| format!("actor_ids[]={key}")).collect();
        check(&many.join("&"), Err("actor_ids"));
    }
}
