//! `GET /v1/organization/usage/completions`: the ledger by time bucket, in the shape of OpenAI's usage API, so that
//! the unmodified client's `client.admin.organization.usage` reads it.

use atelier_domain::{KeyId, ProjectId, Timestamp, UserId};
use atelier_platform::{BucketWidth, Platform, UsageQuery};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::caller::Authenticated;
use crate::error::ApiError;
use crate::extract::WireQuery;
use crate::keys::named;

/// What a page token begins with; the rest is the first bucket's start in unix seconds.
const PAGE_PREFIX: &str = "page_";
/// What usage is told apart by.
const GROUPS: [&str; 4] = ["project_id", "user_id", "api_key_id", "model"];

/// The query, as OpenAI's clients send it: lists with or without brackets in the name.
#[derive(Debug, Deserialize)]
pub struct UsageRequest {
    start_time: Option<i64>,
    end_time: Option<i64>,
    bucket_width: Option<String>,
    limit: Option<usize>,
    page: Option<String>,
    #[serde(default, alias = "group_by[]")]
    group_by: Vec<String>,
    #[serde(default, alias = "models[]")]
    models: Vec<String>,
    #[serde(default, alias = "api_key_ids[]")]
    api_key_ids: Vec<String>,
    #[serde(default, alias = "project_ids[]")]
    project_ids: Vec<String>,
    #[serde(default, alias = "user_ids[]")]
    user_ids: Vec<String>,
}

/// A page of buckets.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsagePageObject {
    /// Always `page`.
    pub object: &'static str,
    /// The buckets, oldest first.
    pub data: Vec<UsageBucketObject>,
    /// Whether there are more.
    pub has_more: bool,
    /// Token of the next page.
    pub next_page: Option<String>,
}

/// One stretch of time.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsageBucketObject {
    /// Always `bucket`.
    pub object: &'static str,
    /// Unix seconds, inclusive.
    pub start_time: i64,
    /// Unix seconds, exclusive.
    pub end_time: i64,
    /// One per group; none when nothing was used.
    pub results: Vec<UsageResultObject>,
}

/// Use of one group in one bucket.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct UsageResultObject {
    /// Always `organization.usage.completions.result`.
    pub object: &'static str,
    /// Prompt tokens, cached ones among them.
    pub input_tokens: u64,
    /// Prompt tokens that the prefix cache held.
    pub input_cached_tokens: u64,
    /// Prompt tokens that were computed.
    pub input_uncached_tokens: u64,
    /// Generated tokens.
    pub output_tokens: u64,
    /// Always 0; there is no audio.
    pub input_audio_tokens: u64,
    /// Always 0; there is no audio.
    pub output_audio_tokens: u64,
    /// Accepted requests.
    pub num_model_requests: u64,
    /// The project, when grouped by it.
    pub project_id: Option<String>,
    /// The person, when grouped by it and a person holds the key.
    pub user_id: Option<String>,
    /// The key, when grouped by it.
    pub api_key_id: Option<String>,
    /// The model, when grouped by it.
    pub model: Option<String>,
    /// Null: there are no batches.
    pub batch: Option<bool>,
    /// Null: there is one tier.
    pub service_tier: Option<String>,
}

/// `GET /v1/organization/usage/completions`.
pub async fn usage_completions(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    WireQuery(request): WireQuery<UsageRequest>,
) -> Result<Json<UsagePageObject>, ApiError> {
    let page = platform.usage_completions(&caller, &request.check()?).await?;
    let data = page.buckets.into_iter().map(|bucket| UsageBucketObject {
        object: "bucket",
        start_time: bucket.start.seconds(),
        end_time: bucket.end.seconds(),
        results: bucket
            .results
            .into_iter()
            .map(|result| UsageResultObject {
                object: "organization.usage.completions.result",
                input_tokens: result.tokens.input,
                input_cached_tokens: result.tokens.input_cached,
                input_uncached_tokens: result.tokens.input.saturating_sub(result.tokens.input_cached),
                output_tokens: result.tokens.output,
                num_model_requests: result.requests,
                api_key_id: result.key.map(|key| key.to_string()),
                project_id: result.project.map(|project| project.to_string()),
                user_id: result.user.map(|user| user.to_string()),
                model: result.model,
                ..Default::default()
            })
            .collect(),
    });
    Ok(Json(UsagePageObject {
        object: "page",
        data: data.collect(),
        has_more: page.next.is_some(),
        next_page: page.next.map(|next| format!("{PAGE_PREFIX}{}", next.seconds())),
    }))
}

impl UsageRequest {
    fn check(self) -> Result<UsageQuery, ApiError> {
        let invalid = |name: &'static str, what: &str| ApiError::invalid(what, Some(name), Some("invalid_value"));
        let (width, usual, most) = match self.bucket_width.as_deref().unwrap_or("1d") {
            "1m" => (BucketWidth::Minute, 60, 1440),
            "1h" => (BucketWidth::Hour, 24, 168),
            "1d" => (BucketWidth::Day, 7, 31),
            _ => return Err(invalid("bucket_width", "No such width. Use 1m, 1h or 1d.")),
        };
        let start = self
            .start_time
            .ok_or_else(|| invalid("start_time", "'start_time' is required: unix seconds from which to count."))?;
        let buckets_max = self.limit.unwrap_or(usual);
        if buckets_max == 0 || buckets_max > most {
            return Err(invalid("limit", &format!("'limit' lies between 1 and {most} for this width.")));
        }
        let start = match self.page {
            None => start,
            Some(page) => page
                .strip_prefix(PAGE_PREFIX)
                .and_then(|seconds| seconds.parse().ok())
                .ok_or_else(|| invalid("page", "No such page. Send the 'next_page' of the page before."))?,
        };
        if let Some(other) = self.group_by.iter().find(|name| !GROUPS.contains(&name.as_str())) {
            return Err(invalid("group_by", &format!("Cannot group by '{other}'. Use {}.", GROUPS.join(", "))));
        }
        let grouped = |by: &str| self.group_by.iter().any(|name| name == by);
        Ok(UsageQuery {
            start: Timestamp::from_seconds(start),
            end: self.end_time.map(Timestamp::from_seconds),
            width,
            group_by_model: grouped("model"),
            group_by_key: grouped("api_key_id"),
            group_by_project: grouped("project_id"),
            group_by_user: grouped("user_id"),
            keys: ids::<KeyId>(&self.api_key_ids, "api_key_ids")?,
            projects: ids::<ProjectId>(&self.project_ids, "project_ids")?,
            users: ids::<UserId>(&self.user_ids, "user_ids")?,
            models: self.models,
            buckets_max,
        })
    }
}

fn ids<T: std::str::FromStr>(texts: &[String], param: &'static str) -> Result<Vec<T>, ApiError> {
    texts.iter().map(|id| named(id, param)).collect()
}
