//! `/v1/runs`: learning from a source, or measuring against one; queued, durable, followable.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use atelier_domain::{RunId, SourceId, limits};
use atelier_platform::{
    Admission, LearnOptions, Platform, PlatformError, RunEvent, RunKind, RunRecord, RunState, StartRun, run_kind,
};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::caller::Authenticated;
use crate::error::ApiError;
use crate::extract::{PathId, WireJson, WireQuery, object};
use crate::wire::list_object;

/// Time between two looks at a run that is followed.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(250);

/// Body of `POST /v1/runs`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRunRequest {
    /// `src_…`.
    pub source: String,
    /// `learn` (the default) or `evaluate`.
    #[serde(default)]
    pub kind: KindWord,
    /// The recipe's numbers where others are wanted: rank, alpha, dropout, learning_rate, epochs, seed.
    #[serde(default, deserialize_with = "object")]
    #[schema(value_type = Object)]
    pub options: LearnOptions,
}

/// What a run does.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KindWord {
    /// Trains an adapter, and puts it live when it is better than what is served.
    #[default]
    Learn,
    /// Measures what is served against the base.
    Evaluate,
}

/// A run.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunObject {
    /// `run_…`.
    pub id: String,
    /// Always `run`.
    pub object: &'static str,
    /// `learn` or `evaluate`.
    pub kind: &'static str,
    /// `queued`, `running`, `cancelling`, then `live`, `refused`, `succeeded`, `failed` or `cancelled`.
    pub status: &'static str,
    /// The source.
    pub source: String,
    /// How far it is.
    pub progress: Option<ProgressObject>,
    /// The version that it made.
    pub version: Option<u32>,
    /// Why it was refused or failed, in a sentence.
    pub reason: Option<String>,
    /// `seconds`, `samples` and the eval card, once it has ended.
    #[schema(value_type = Object)]
    pub result: Option<Value>,
    /// Unix seconds.
    pub created_at: i64,
    /// Unix seconds.
    pub started_at: Option<i64>,
    /// Unix seconds.
    pub finished_at: Option<i64>,
}

/// How far a run is.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProgressObject {
    /// Step of the pipeline.
    pub stage: String,
    /// Done of it.
    pub step: u64,
    /// In all.
    pub steps: u64,
}

/// Something that happened in a run.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunEventObject {
    /// Always `run.event`.
    pub object: &'static str,
    /// Counts up within the run.
    pub sequence: u64,
    /// `message`, `step`, `validation`, …
    pub r#type: String,
    /// A sentence, where there is one.
    pub message: Option<String>,
    /// The numbers.
    #[schema(value_type = Object)]
    pub data: Value,
    /// Unix seconds.
    pub created_at: i64,
}

list_object! {
    /// The tenant's runs.
    RunList of RunObject
}
list_object! {
    /// Events of a run.
    RunEventList of RunEventObject
}

/// The query of a run's events.
#[derive(Debug, Deserialize)]
pub struct EventsQuery {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    stream: bool,
}

/// `POST /v1/runs`.
pub async fn create_run(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    WireJson(body): WireJson<CreateRunRequest>,
) -> Result<(StatusCode, Json<RunObject>), ApiError> {
    let source: SourceId =
        body.source.parse().map_err(|_| ApiError::not_found("No such source, or not one of yours.", "not_found"))?;
    let kind = match body.kind {
        KindWord::Learn => RunKind::Learn,
        KindWord::Evaluate => RunKind::Evaluate,
    };
    let run = platform.start_run(&caller, StartRun { source, kind, options: body.options }).await?;
    Ok((StatusCode::CREATED, Json(run_object(run))))
}

/// `GET /v1/runs`.
pub async fn list_runs(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
) -> Result<Json<RunList>, ApiError> {
    let runs = platform.list_runs(&caller).await?;
    Ok(Json(RunList::whole(runs.into_iter().map(run_object).collect())))
}

/// `GET /v1/runs/{run}`.
pub async fn get_run(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathId(id): PathId<RunId>,
) -> Result<Json<RunObject>, ApiError> {
    Ok(Json(run_object(platform.get_run(&caller, id).await?)))
}

/// `POST /v1/runs/{run}/cancel`.
pub async fn cancel_run(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathId(id): PathId<RunId>,
) -> Result<Json<RunObject>, ApiError> {
    Ok(Json(run_object(platform.cancel_run(&caller, id).await?)))
}

/// `GET /v1/runs/{run}/events`.
pub async fn list_run_events(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
    PathId(id): PathId<RunId>,
    WireQuery(query): WireQuery<EventsQuery>,
) -> Result<Response, ApiError> {
    let following = if query.stream { Some(platform.follow(&caller)?) } else { None };
    let events = platform.run_events(&caller, id, query.after).await?;
    let Some(following) = following else {
        // A full page: what comes after it is asked for by the last number on it.
        let has_more = events.len() >= limits::PAGE_ROWS_MAX;
        let data = events.into_iter().map(event_object).collect();
        return Ok(Json(RunEventList { has_more, ..RunEventList::whole(data) }).into_response());
    };
    let (waiting, state) = (events.into(), Following::Looking);
    let follower = Follower { platform, caller, id, after: query.after, waiting, state, _following: following };
    let body = stream::unfold(follower, |mut follower| async move {
        let frame = follower.next().await?;
        Some((Ok::<Event, Infallible>(frame), follower))
    });
    Ok(Sse::new(body).keep_alive(KeepAlive::default()).into_response())
}

/// Follows a run until it ends; each look asks again what the caller's key may do now.
struct Follower {
    platform: Platform,
    caller: atelier_access::Caller,
    id: RunId,
    after: u64,
    waiting: VecDeque<RunEvent>,
    state: Following,
    _following: Admission,
}

/// How far a follower is.
enum Following {
    Looking,
    /// All is said but the last frame.
    Closing,
    Closed,
}

impl Follower {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                self.after = event.sequence;
                return Some(Event::default().json_data(event_object(event)).unwrap_or_default());
            }
            match self.state {
                Following::Closed => return None,
                Following::Closing => {
                    self.state = Following::Closed;
                    return Some(Event::default().data("[DONE]"));
                }
                Following::Looking => {}
            }
            match self.look().await {
                Ok(has_ended) if !self.waiting.is_empty() || !has_ended => {}
                Ok(_) => self.state = Following::Closing,
                Err(error) => {
                    self.state = Following::Closing;
                    return Some(Event::default().json_data(ApiError::from(error).body()).unwrap_or_default());
                }
            }
        }
    }

    /// Takes what happened since; waits a moment if that is nothing. Whether the run has ended.
    async fn look(&mut self) -> Result<bool, PlatformError> {
        // A key that was revoked meanwhile follows no further.
        self.caller = self.platform.renew(&self.caller).await?;
        // The state before the events: what a run says last is written before it ends.
        let run = self.platform.get_run(&self.caller, self.id).await?;
        self.waiting = self.platform.run_events(&self.caller, self.id, self.after).await?.into();
        let has_ended = !matches!(run.state, RunState::Queued | RunState::Running);
        if self.waiting.is_empty() && !has_ended {
            tokio::time::sleep(FOLLOW_INTERVAL).await;
        }
        Ok(has_ended)
    }
}

fn run_object(run: RunRecord) -> RunObject {
    RunObject {
        id: run.id.to_string(),
        object: "run",
        kind: run_kind(&run).as_str(),
        status: match run.state {
            RunState::Queued => "queued",
            RunState::Running if run.cancel_requested => "cancelling",
            RunState::Running => "running",
            RunState::Live => "live",
            RunState::Succeeded => "succeeded",
            RunState::Refused => "refused",
            RunState::Failed => "failed",
            RunState::Cancelled => "cancelled",
        },
        source: run.source.to_string(),
        progress: run.progress.map(|progress| ProgressObject {
            stage: progress.stage,
            step: progress.done,
            steps: progress.total,
        }),
        version: run.version.map(|version| version.get()),
        reason: run.error.map(|error| error.message),
        result: run.result,
        created_at: run.created_at.seconds(),
        started_at: run.started_at.map(|at| at.seconds()),
        finished_at: run.finished_at.map(|at| at.seconds()),
    }
}

fn event_object(event: RunEvent) -> RunEventObject {
    RunEventObject {
        object: "run.event",
        sequence: event.sequence,
        message: event.body["message"].as_str().map(str::to_owned),
        r#type: event.kind,
        data: event.body,
        created_at: event.at.seconds(),
    }
}
