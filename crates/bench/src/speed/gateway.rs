//! What everything but the model costs: a real server in its own process, with a model of next to no cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use atelier_engine::{AdapterSet, AdapterSource, CompletionJob, Engine, EngineOptions, Event, Sampling};
use atelier_kernels::{Compute, WeightFormat};
use atelier_model::{Adapter, Digest, Model};
use serde_json::json;

use super::client::Client;
use super::{SpeedArgs, load, median, percentile};
use crate::figures::Figures;
use crate::random_base::TINY;
use crate::server::Setup;

/// Name in the table.
pub const MODEL: &str = TINY.name;
/// Format of its weights.
pub const WEIGHTS: &str = "bf16";

/// Connections at once.
pub const CONNECTIONS: usize = 16;
/// Rate of the paced figures; the targets name it.
const PACED_REQUESTS_PER_SECOND: f64 = 1_000.0;
/// Share of the highest rate that is paced where the server does not reach the wished one.
const PACED_SHARE: f64 = 0.5;
/// Requests one after another of which the median is taken.
const SERIAL_REQUESTS: usize = 1_000;
/// What every request asks.
const PROMPT: &str = "def total(items):\n    return";

/// Every figure of the gateway.
pub fn measure(args: &SpeedArgs, compute: &Arc<Compute>, figures: &mut Figures) -> Result<()> {
    let folder = TINY.write(&args.scratch, &args.host.base)?;
    let span = Duration::from_millis(if args.quick { 500 } else { 4_000 });
    let serial = if args.quick { SERIAL_REQUESTS / 10 } else { SERIAL_REQUESTS };
    let engine_seconds = engine_median(load(compute, &folder, WeightFormat::Bf16, false)?, serial)?;

    let (binary, threads) = (Setup::binary(args.server.as_deref())?, compute.threads());
    let server = Setup { binary, base: folder, threads, database: None, separation: None }.start()?;
    let key = server.new_tenant_key("bench", "shared")?;
    let body = json!({"model": "atelier-base", "prompt": PROMPT, "max_tokens": 1, "temperature": 0}).to_string();
    let mut client = Client::connect(&server.url)?;
    let completion = client.request("POST", "/v1/completions", Some(&key), &body);
    let health = client.request("GET", "/healthz", None, "");

    let mut alone = Vec::with_capacity(serial);
    for _ in 0..serial {
        let start = Instant::now();
        client.exchange(&completion)?;
        alone.push(start.elapsed().as_secs_f64());
    }
    let alone = median(alone);
    let what = format!(
        "HTTP {:.3} ms, engine {:.3} ms, {} prompt bytes, 1 token",
        1e3 * alone,
        1e3 * engine_seconds,
        PROMPT.len()
    );
    figures.add(MODEL, WEIGHTS, "gateway.overhead", 1e3 * (alone - engine_seconds), &what);

    let mut closed = flood(&server.url, &completion, span)?;
    let rate = closed.len() as f64 / span.as_secs_f64();
    let what = format!("{CONNECTIONS} connections, {} s", span.as_secs_f64());
    figures.add(MODEL, WEIGHTS, "gateway.requests", rate, &what);
    figures.add(MODEL, WEIGHTS, "gateway.p50", 1e3 * percentile(&mut closed, 0.5), &what);
    figures.add(MODEL, WEIGHTS, "gateway.p99", 1e3 * percentile(&mut closed, 0.99), &what);

    let pace = PACED_REQUESTS_PER_SECOND.min(PACED_SHARE * rate);
    let mut paced = paced(&server.url, &completion, span, pace)?;
    let what = format!("{pace:.0} req/s, {CONNECTIONS} connections, {} s", span.as_secs_f64());
    figures.add(MODEL, WEIGHTS, "gateway.paced_p50", 1e3 * percentile(&mut paced, 0.5), &what);
    figures.add(MODEL, WEIGHTS, "gateway.paced_p99", 1e3 * percentile(&mut paced, 0.99), &what);

    let health = flood(&server.url, &health, span)?.len() as f64 / span.as_secs_f64();
    figures.add(MODEL, WEIGHTS, "gateway.health", health, &format!("{CONNECTIONS} connections"));
    Ok(())
}

/// Seconds of each request, all connections as fast as they are answered, for `span`.
pub fn flood(url: &str, request: &[u8], span: Duration) -> Result<Vec<f64>> {
    let stop = AtomicBool::new(false);
    on_all_connections(url, |client, _| {
        let mut seconds = Vec::new();
        let begin = Instant::now();
        while !stop.load(Ordering::Relaxed) && begin.elapsed() < span {
            let start = Instant::now();
            client.exchange(request).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        Ok(seconds)
    })
}

/// Seconds of each request from the moment when it was due, `rate` a second over all connections.
fn paced(url: &str, request: &[u8], span: Duration, rate: f64) -> Result<Vec<f64>> {
    let interval = Duration::from_secs_f64(CONNECTIONS as f64 / rate);
    let begin = Instant::now() + Duration::from_millis(50);
    on_all_connections(url, |client, connection| {
        let mut seconds = Vec::new();
        let mut due = begin + interval.mul_f64(connection as f64 / CONNECTIONS as f64);
        while due < begin + span {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            client.exchange(request)?;
            seconds.push(due.elapsed().as_secs_f64());
            due += interval;
        }
        Ok(seconds)
    })
}

/// Runs `work` on a thread and a connection each and joins what they found.
pub fn on_all_connections(url: &str, work: impl Fn(&mut Client, usize) -> Result<Vec<f64>> + Sync) -> Result<Vec<f64>> {
    let work = &work;
    let all = thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|connection| scope.spawn(move || work(&mut Client::connect(url)?, connection)))
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Result<Vec<f64>>>| {
            thread.join().map_err(|_| anyhow!("a client panicked"))?
        };
        threads.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    let seconds = all.concat();
    ensure!(!seconds.is_empty(), "no request was answered");
    Ok(seconds)
}

/// The engine's own time for the same job, from submission to the end.
fn engine_median(model: Arc<Model>, count: usize) -> Result<f64> {
    let prompt = model.tokenizer().encode(PROMPT);
    let engine = Engine::start(model, Arc::new(NoAdapters), EngineOptions::default());
    let mut seconds = Vec::with_capacity(count);
    for _ in 0..count {
        let job = CompletionJob {
            prompt: prompt.clone(),
            adapters: AdapterSet::none(),
            cache_salt: [0; 32],
            client: 0,
            weight: 1,
            sampling: Sampling::greedy(),
            stop: Vec::new(),
            tokens_max: 1,
            logprobs: None,
            prompt_logprobs: false,
        };
        let start = Instant::now();
        let mut generation = engine.submit(job)?;
        while let Some(event) = generation.blocking_next() {
            ensure!(!matches!(event, Event::Failed(_)), "the engine failed");
        }
        seconds.push(start.elapsed().as_secs_f64());
    }
    engine.shutdown();
    Ok(median(seconds))
}

struct NoAdapters;

impl AdapterSource for NoAdapters {
    fn load(&self, digest: Digest) -> Result<Adapter, String> {
        Err(format!("there is no adapter {digest}"))
    }
}
