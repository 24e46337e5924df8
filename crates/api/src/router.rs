//! One line per endpoint; what is not listed here does not exist. The OpenAPI document is made from the same list.

use std::sync::Arc;

use atelier_domain::limits;
use atelier_platform::Platform;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware;
use axum::routing::{delete, get, patch, post, put};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::{RequestBodyDeadlineLayer, RequestBodyTimeoutLayer};

use crate::endpoint::{Access, Endpoint};
use crate::error::ApiError;
use crate::metrics::{self, Metrics};
use crate::site::{CALLBACK_PATH, Site};
use crate::state::AppState;
use crate::{
    audit, completions, export, health, keys, models, observe, openapi, organization, runs, sign_in, sign_on, sources,
    tenants, usage, versions,
};

/// Every endpoint of the server.
pub fn endpoints() -> Vec<Endpoint> {
    let own = [completing(), learning(), serving(), managing(), organization::endpoints()];
    own.into_iter().chain([signing_in(), auditing(), operating(), anybodys()]).flatten().collect()
}

fn completing() -> Vec<Endpoint> {
    use Access::Tenant;
    vec![
        Endpoint::new("create_completion", Tenant, post(completions::create_completion), "/v1/completions")
            .about("Completes a prompt, or fills in between `prompt` and `suffix`; whole or streamed")
            .takes::<completions::CreateCompletionRequest>()
            .gives::<completions::CompletionObject>(StatusCode::OK),
        Endpoint::new("list_models", Tenant, get(models::list_models), "/v1/models")
            .about("The models that the key may use")
            .gives::<models::ModelList>(StatusCode::OK),
        Endpoint::new("get_model", Tenant, get(models::get_model), "/v1/models/{model}")
            .about("One of them")
            .gives::<models::ModelObject>(StatusCode::OK),
    ]
}

fn learning() -> Vec<Endpoint> {
    use Access::{Tenant, TenantAdmin};
    vec![
        Endpoint::new("create_source", TenantAdmin, post(sources::create_source), "/v1/sources")
            .about("Gives code to learn from: a tar.gz as the body, or the path of a folder on the server")
            .query("name", "Name of the source when the body is an archive")
            .takes::<sources::CreateSourceRequest>()
            .body_limit(limits::SOURCE_ARCHIVE_BYTES_MAX)
            .gives::<sources::SourceObject>(StatusCode::CREATED),
        Endpoint::new("list_sources", TenantAdmin, get(sources::list_sources), "/v1/sources")
            .about("The tenant's sources")
            .gives::<sources::SourceList>(StatusCode::OK),
        Endpoint::new("get_source", TenantAdmin, get(sources::get_source), "/v1/sources/{source}")
            .about("One source")
            .gives::<sources::SourceObject>(StatusCode::OK),
        Endpoint::new("delete_source", TenantAdmin, delete(sources::delete_source), "/v1/sources/{source}")
            .about("Removes a source and its archive")
            .gives::<crate::wire::Deleted>(StatusCode::OK),
        Endpoint::new("create_run", TenantAdmin, post(runs::create_run), "/v1/runs")
            .about("Starts learning from a source, or evaluates what is served against it")
            .takes::<runs::CreateRunRequest>()
            .gives::<runs::RunObject>(StatusCode::CREATED),
        Endpoint::new("list_runs", Tenant, get(runs::list_runs), "/v1/runs")
            .about("The tenant's runs, newest first")
            .gives::<runs::RunList>(StatusCode::OK),
        Endpoint::new("get_run", Tenant, get(runs::get_run), "/v1/runs/{run}")
            .about("One run, with its eval card when it has one")
            .gives::<runs::RunObject>(StatusCode::OK),
        Endpoint::new("list_run_events", Tenant, get(runs::list_run_events), "/v1/runs/{run}/events")
            .about("What happened in a run; with `stream=true` as server-sent events until it ends")
            .query("after", "Only events with a greater number")
            .query("stream", "true: server-sent events until the run ends")
            .gives::<runs::RunEventList>(StatusCode::OK),
        Endpoint::new("cancel_run", TenantAdmin, post(runs::cancel_run), "/v1/runs/{run}/cancel")
            .about("Stops a run; what is served stays")
            .gives::<runs::RunObject>(StatusCode::OK),
    ]
}

fn serving() -> Vec<Endpoint> {
    use Access::{Tenant, TenantAdmin};
    vec![
        Endpoint::new("list_versions", Tenant, get(versions::list_versions), "/v1/versions")
            .about("The tenant's versions and where its aliases point")
            .gives::<versions::VersionList>(StatusCode::OK),
        Endpoint::new("export_adapter", TenantAdmin, get(versions::export_adapter), "/v1/versions/{version}/adapter")
            .about("A version's adapter in PEFT format, as tar.gz")
            .gives_bytes("application/gzip"),
        Endpoint::new("move_alias", TenantAdmin, put(versions::move_alias), "/v1/aliases/{alias}")
            .about("Points `live` at another version: rolls back or forward")
            .takes::<versions::MoveAliasRequest>()
            .gives::<versions::VersionList>(StatusCode::OK),
        Endpoint::new("export_organization", TenantAdmin, get(export::export_organization), "/v1/organization/export")
            .about("All that the tenant has, as one tar.gz: sources, runs, versions with their adapters, usage, audit trail")
            .gives_bytes("application/gzip"),
        Endpoint::new(
            "usage_completions",
            TenantAdmin,
            get(usage::usage_completions),
            "/v1/organization/usage/completions",
        )
        .about("Tokens and requests by time bucket, in the shape of OpenAI's usage API")
        .query("start_time", "Unix seconds, from here on; required")
        .query("end_time", "Unix seconds, up to here; now when absent")
        .query("bucket_width", "1m, 1h or 1d (the default)")
        .query("group_by", "project_id, user_id, api_key_id, model; may be repeated")
        .query("models", "Only these models; may be repeated")
        .query("api_key_ids", "Only these keys; may be repeated")
        .query("project_ids", "Only these projects; may be repeated")
        .query("user_ids", "Only keys of these people; may be repeated")
        .query("limit", "Buckets per page")
        .query("page", "`next_page` of the page before")
        .gives::<usage::UsagePageObject>(StatusCode::OK),
    ]
}

fn managing() -> Vec<Endpoint> {
    use Access::TenantAdmin;
    vec![
        Endpoint::new("create_key", TenantAdmin, post(keys::create_key), "/v1/keys")
            .about("Makes a key of the tenant, shown only here")
            .takes::<keys::CreateKeyRequest>()
            .gives::<keys::CreatedKeyObject>(StatusCode::CREATED),
        Endpoint::new("list_keys", TenantAdmin, get(keys::list_keys), "/v1/keys")
            .about("The tenant's keys, revoked ones included")
            .query("after", "Only keys after this one in the list")
            .gives::<keys::KeyList>(StatusCode::OK),
        Endpoint::new("get_key", TenantAdmin, get(keys::get_key), "/v1/keys/{key}")
            .about("One key")
            .gives::<keys::KeyObject>(StatusCode::OK),
        Endpoint::new("update_key", TenantAdmin, patch(keys::update_key), "/v1/keys/{key}")
            .about("Renames a key, or changes what it may and how long it lives; what it loses ends within a second")
            .takes::<keys::UpdateKeyRequest>()
            .gives::<keys::KeyObject>(StatusCode::OK),
        Endpoint::new("delete_key", TenantAdmin, delete(keys::delete_key), "/v1/keys/{key}")
            .about("Revokes a key within a second, open streams included")
            .gives::<crate::wire::Deleted>(StatusCode::OK),
    ]
}

fn signing_in() -> Vec<Endpoint> {
    use Access::{Anyone, Tenant, TenantAdmin};
    vec![
        Endpoint::new("get_sign_on", TenantAdmin, get(sign_on::get_sign_on), "/v1/organization/sign_on")
            .about("Which issuer the tenant trusts to say who its people are")
            .gives::<sign_on::SignOnObject>(StatusCode::OK),
        Endpoint::new("set_sign_on", TenantAdmin, put(sign_on::set_sign_on), "/v1/organization/sign_on")
            .about("Trusts an issuer (OpenID Connect); with another one than before, everybody must sign in anew")
            .takes::<sign_on::SetSignOnRequest>()
            .gives::<sign_on::SignOnObject>(StatusCode::OK),
        Endpoint::new("delete_sign_on", TenantAdmin, delete(sign_on::delete_sign_on), "/v1/organization/sign_on")
            .about("Trusts no issuer any more; sessions, and keys by signing in, end within a second")
            .gives::<crate::wire::Deleted>(StatusCode::OK),
        Endpoint::new("check_sign_on", TenantAdmin, get(sign_on::check_sign_on), "/v1/organization/sign_on/check")
            .about("Asks the issuer whether people can sign in, and says what is wrong")
            .gives::<sign_on::SignOnCheckObject>(StatusCode::OK),
        Endpoint::new("get_session", Tenant, get(sign_in::get_session), "/v1/session")
            .about("Who the caller is, by a browser's session or by a key")
            .gives::<sign_in::SessionObject>(StatusCode::OK),
        Endpoint::new("delete_session", Tenant, delete(sign_in::delete_session), "/v1/session")
            .about("Signs out: ends the session, or the key that came by signing in")
            .gives::<sign_in::SignedOutObject>(StatusCode::OK),
        Endpoint::new("create_login_key", Anyone, post(sign_in::create_login_key), "/v1/sign_in/keys")
            .about("The key of a program for which somebody signed in, for the code that the browser brought")
            .takes::<sign_in::CreateLoginKeyRequest>()
            .gives::<sign_in::LoginKeyObject>(StatusCode::CREATED),
        Endpoint::new("read_sign_in", Anyone, get(sign_in::read_sign_in), "/sign-in")
            .about("A page that asks for an organization's name; with it, the way to the organization's issuer")
            .query("organization", "The organization's name")
            .query("return_to", "A path of this server to go on to")
            .query("port", "For a program: the port on 127.0.0.1 where it waits for the code")
            .query("state", "For a program: what it knows its answer by")
            .query("challenge", "For a program: the hash of what it will show (RFC 7636, S256)")
            .gives_bytes("text/html"),
        Endpoint::new("read_sign_in_answer", Anyone, get(sign_in::read_sign_in_answer), CALLBACK_PATH)
            .about("Where an issuer sends the browser back to: gives it a session, or a program its code")
            .query("state", "Of the sign-in that the browser began")
            .query("code", "What is exchanged for the ID token")
            .query("iss", "The issuer that answers (RFC 9207)")
            .query("error", "Why the issuer let nobody in")
            .gives_bytes("text/html"),
        Endpoint::new("create_sign_out", Anyone, post(sign_in::create_sign_out), "/sign-out")
            .about("Ends the browser's session")
            .gives_bytes("text/html"),
    ]
}

fn auditing() -> Vec<Endpoint> {
    use Access::{Operator, TenantAdmin};
    // As OpenAI's API has it, for both trails.
    let listed = |endpoint: Endpoint| {
        endpoint
            .query("effective_at[gt]", "Only events after this second, in unix seconds; also `gte`, `lt`, `lte`")
            .query("effective_at[gte]", "Only events from this second on")
            .query("effective_at[lt]", "Only events before this second")
            .query("effective_at[lte]", "Only events up to this second")
            .query("event_types", "Only events of these types; may be repeated")
            .query("actor_ids", "Only events by these keys, people or machines; may be repeated")
            .query("project_ids", "Only events by keys of these projects; may be repeated")
            .query("resource_ids", "Only events about these things; may be repeated")
            .query("limit", "Events per page: 1 to 100, 20 when absent")
            .query("after", "Only events older than this one: `last_id` of the page before")
            .query("before", "Only events newer than this one, the nearest of them")
            .gives::<audit::AuditLogList>(StatusCode::OK)
    };
    let list = get(audit::list_audit_logs);
    let list_all = get(audit::list_operator_audit_logs);
    vec![
        listed(Endpoint::new("list_audit_logs", TenantAdmin, list, "/v1/organization/audit_logs")).about(
            "What was done to the tenant, its keys, its code and its models, newest first, as OpenAI's API has it",
        ),
        Endpoint::new(
            "verify_audit_logs",
            TenantAdmin,
            get(audit::verify_audit_logs),
            "/v1/organization/audit_logs/verification",
        )
        .about("Whether the tenant's audit trail is what was written: no event changed, moved, removed or put in")
        .gives::<audit::AuditVerificationObject>(StatusCode::OK),
        listed(Endpoint::new("list_operator_audit_logs", Operator, list_all, "/v1/operator/audit_logs"))
            .about("What was done to the installation, its tenants and their keys, newest first"),
        Endpoint::new(
            "verify_operator_audit_logs",
            Operator,
            get(audit::verify_operator_audit_logs),
            "/v1/operator/audit_logs/verification",
        )
        .about("Whether every audit trail of the installation is what was written")
        .gives::<audit::AuditVerificationObject>(StatusCode::OK),
    ]
}

fn operating() -> Vec<Endpoint> {
    use Access::{Operator, Tenant, TenantAdmin};
    vec![
        Endpoint::new("create_tenant", Operator, post(tenants::create_tenant), "/v1/tenants")
            .about("Creates a tenant and its first key, shown only here")
            .takes::<tenants::CreateTenantRequest>()
            .gives::<tenants::CreatedTenantObject>(StatusCode::CREATED),
        Endpoint::new("list_tenants", Operator, get(tenants::list_tenants), "/v1/tenants")
            .about("All tenants")
            .gives::<tenants::TenantList>(StatusCode::OK),
        Endpoint::new("get_tenant", Tenant, get(tenants::get_tenant), "/v1/tenants/{tenant}")
            .about("One tenant, by name or id")
            .gives::<tenants::TenantObject>(StatusCode::OK),
        Endpoint::new("update_tenant", Operator, patch(tenants::update_tenant), "/v1/tenants/{tenant}")
            .about("Moves a tenant to another plan; its key and model name stay")
            .takes::<tenants::UpdateTenantRequest>()
            .gives::<tenants::TenantObject>(StatusCode::OK),
        Endpoint::new("delete_tenant", Operator, delete(tenants::delete_tenant), "/v1/tenants/{tenant}")
            .about("Erases a tenant, its keys, its data and its adapters; answers with the certificate of it")
            .gives::<tenants::DeletedTenantObject>(StatusCode::OK),
        Endpoint::new("list_erasures", Operator, get(tenants::list_erasures), "/v1/erasures")
            .about("The certificates of erased tenants, newest first")
            .query("after", "Only certificates older than that of this tenant, by its id")
            .gives::<tenants::ErasureList>(StatusCode::OK),
        Endpoint::new("rotate_key", TenantAdmin, post(tenants::rotate_key), "/v1/tenants/{tenant}/keys")
            .about("Makes a new key, shown only here, and revokes the tenant's others")
            .gives::<keys::CreatedKeyObject>(StatusCode::CREATED),
    ]
}

fn anybodys() -> Vec<Endpoint> {
    use Access::Anyone;
    vec![
        Endpoint::new("read_openapi", Anyone, get(openapi::read_openapi), "/v1/openapi.json")
            .about("This document")
            .gives_bytes("application/json"),
        Endpoint::new("read_health", Anyone, get(health::read_health), "/healthz")
            .about("The process lives")
            .gives::<health::HealthObject>(StatusCode::OK),
        Endpoint::new("read_readiness", Anyone, get(health::read_readiness), "/readyz")
            .about("The base is loaded and the store answers")
            .gives::<health::HealthObject>(StatusCode::OK),
        Endpoint::new("read_metrics", Anyone, get(metrics::read_metrics), "/metrics")
            .about("Numbers for Prometheus, none of them about a tenant")
            .gives_bytes("application/openmetrics-text"),
    ]
}

/// The whole server as one router, which counts in `metrics`; `url` is what browsers call it.
pub fn router(platform: Platform, metrics: Arc<Metrics>, url: &str) -> Router {
    let state = AppState { platform, site: Site::new(url), metrics };
    let routes = endpoints()
        .into_iter()
        .fold(Router::new(), Endpoint::mount)
        .fallback(async || {
            ApiError::not_found("Unknown request URL. GET /v1/openapi.json lists what there is.", "unknown_url")
        })
        .method_not_allowed_fallback(async || {
            ApiError::with_status(
                StatusCode::METHOD_NOT_ALLOWED,
                "This URL does not take that method. GET /v1/openapi.json lists what there is.",
                "method_not_allowed",
            )
        });
    #[cfg(debug_assertions)]
    let routes = routes.layer(middleware::from_fn(crate::faults::provoke));
    routes
        .layer(DefaultBodyLimit::max(limits::REQUEST_BODY_BYTES_MAX))
        .layer(RequestBodyTimeoutLayer::new(limits::REQUEST_BODY_PAUSE_MAX))
        .layer(RequestBodyDeadlineLayer::new(limits::REQUEST_BODY_TIMEOUT))
        .layer(CatchPanicLayer::custom(observe::panicked))
        .layer(middleware::from_fn_with_state(state.clone(), observe::observe))
        .with_state(state)
}
