//! What everything but the model costs: a real server in its own process, with a model of next to no cost.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use atelier_engine::{AdapterSet, AdapterSource, CompletionJob, Engine, EngineOptions, Event, Sampling};
use atelier_kernels::{Compute, WeightFormat};
use atelier_model::{Adapter, Digest, Model};
use serde_json::{Value, json};

use super::client::Client;
use super::{SpeedArgs, load, median, percentile};
use crate::figures::Figures;
use crate::random_base::TINY;

/// Name in the table.
pub const MODEL: &str = TINY.name;
/// Format of its weights.
pub const WEIGHTS: &str = "bf16";

/// Connections at once.
const CONNECTIONS: usize = 16;
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

    let server = Server::start(&server_binary(args)?, &folder, compute.threads())?;
    let key = server.new_tenant_key()?;
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
fn flood(url: &str, request: &[u8], span: Duration) -> Result<Vec<f64>> {
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
fn on_all_connections(url: &str, work: impl Fn(&mut Client, usize) -> Result<Vec<f64>> + Sync) -> Result<Vec<f64>> {
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

fn server_binary(args: &SpeedArgs) -> Result<PathBuf> {
    let path = match &args.server {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("atelier"),
    };
    ensure!(path.exists(), "{} is not built; `make bench` builds it, or name it with --server", path.display());
    Ok(path)
}

/// A server on a data folder of its own; stopped and forgotten when dropped.
struct Server {
    child: Child,
    url: String,
    operator_key: String,
    _data: tempfile::TempDir,
}

impl Server {
    fn start(binary: &Path, base: &Path, threads: usize) -> Result<Server> {
        let data = tempfile::tempdir()?;
        let mut child = Command::new(binary)
            .arg("--data")
            .arg(data.path())
            .args(["--json", "serve", "--listen", "127.0.0.1:0", "--threads", &threads.to_string(), "--base"])
            .arg(base)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{} does not start", binary.display()))?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("the server's output is piped")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let said: Value = serde_json::from_str(&line).context("the server ended before it listened")?;
        let text = |name: &str| said[name].as_str().map(str::to_owned).with_context(|| format!("it said no {name}"));
        Ok(Server { child, url: text("url")?, operator_key: text("operator_key")?, _data: data })
    }

    fn new_tenant_key(&self) -> Result<String> {
        let mut client = Client::connect(&self.url)?;
        let body = json!({"name": "bench", "plan": "shared"}).to_string();
        let request = client.request("POST", "/v1/tenants", Some(&self.operator_key), &body);
        let answer: Value = serde_json::from_slice(&client.exchange(&request)?)?;
        answer["key"]["value"].as_str().map(str::to_owned).context("the new tenant came without a key")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
