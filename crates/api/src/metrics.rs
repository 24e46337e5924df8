//! `GET /metrics` in the OpenMetrics text format. No label ever carries a tenant, a key or a model version: numbers
//! per tenant come from the usage ledger.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::error::ApiError;
use crate::observe::{NO_ROUTE, OTHER_METHOD};
use crate::state::AppState;

/// Content type of OpenMetrics 1.0.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// First bucket of request durations, seconds, and how many there are, each twice the one before: 1 ms to 65 s.
const DURATION_BUCKETS: (f64, u16) = (0.001, 17);

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    /// Route pattern, never the path itself.
    route: String,
    method: &'static str,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

/// The registry and its handles.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram>,
    engine: EngineGauges,
}

#[derive(Default)]
struct EngineGauges {
    running: Gauge<i64>,
    queued: Gauge<i64>,
    kv_blocks_free: Gauge<i64>,
    adapters_resident: Gauge<i64>,
    adapter_bytes: Gauge<i64>,
    prompt_tokens: Gauge<u64, AtomicU64>,
    completion_tokens: Gauge<u64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let requests = Family::<RequestLabels, Counter>::default();
        let durations = Family::<RouteLabels, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(DURATION_BUCKETS.0, 2.0, DURATION_BUCKETS.1))
        });
        let engine = EngineGauges::default();
        let mut registry = Registry::with_prefix("atelier");
        registry.register("http_requests", "Requests answered", requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "Time from the request's head to the response's head",
            Unit::Seconds,
            durations.clone(),
        );
        for (name, help, gauge) in [
            ("engine_sequences_running", "Sequences in the batch", &engine.running),
            ("engine_sequences_queued", "Sequences waiting for a slot", &engine.queued),
            ("engine_kv_blocks_free", "Blocks of the KV cache that are free", &engine.kv_blocks_free),
            ("engine_adapters_resident", "Adapters in memory", &engine.adapters_resident),
            ("engine_adapter_resident_bytes", "Memory that they take", &engine.adapter_bytes),
        ] {
            registry.register(name, help, gauge.clone());
        }
        for (name, help, gauge) in [
            ("engine_prompt_tokens", "Prompt tokens computed since the start", &engine.prompt_tokens),
            ("engine_completion_tokens", "Tokens generated since the start", &engine.completion_tokens),
        ] {
            registry.register(name, help, gauge.clone());
        }
        Self { registry, requests, durations, engine }
    }
}

impl Metrics {
    /// Counts one answered request. Route and method come from closed sets: whoever makes up others makes no series.
    pub fn answered(&self, route: &str, method: &'static str, status: u16, duration: Duration) {
        let route = route.to_owned();
        self.requests.get_or_create(&RequestLabels { route: route.clone(), method, status }).inc();
        self.durations.get_or_create(&RouteLabels { route }).observe(duration.as_secs_f64());
    }

    /// Counts a request that was refused before it could be read, so that no route was asked.
    pub fn refused(&self, status: u16) {
        let labels = RequestLabels { route: NO_ROUTE.to_owned(), method: OTHER_METHOD, status };
        self.requests.get_or_create(&labels).inc();
    }

    /// All of it as text.
    pub(crate) fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut body = String::new();
        text::encode(&mut body, &self.registry)?;
        Ok(body)
    }
}

/// `GET /metrics`.
pub async fn read_metrics(State(state): State<AppState>) -> Result<Response, ApiError> {
    let stats = state.platform.stats();
    let engine = &state.metrics.engine;
    engine.running.set(stats.sequences_running.cast_signed() as i64);
    engine.queued.set(stats.sequences_queued.cast_signed() as i64);
    engine.kv_blocks_free.set(stats.kv_blocks_free.cast_signed() as i64);
    engine.adapters_resident.set(stats.adapters_resident.cast_signed() as i64);
    engine.adapter_bytes.set(stats.adapter_bytes.cast_signed() as i64);
    engine.prompt_tokens.set(stats.prompt_tokens);
    engine.completion_tokens.set(stats.completion_tokens);
    let body = state.metrics.encode().map_err(|_| {
        ApiError::with_status(
            axum::http::StatusCode::INTERNAL_SERVER_ERROR,
            "The metrics could not be written as text.",
            "internal_error",
        )
    })?;
    Ok(([(header::CONTENT_TYPE, OPENMETRICS)], body).into_response())
}
