//! A world of one platform, its operator and its tenants.

use std::path::{Path, PathBuf};
use std::time::Duration;

use atelier_access::Caller;
use atelier_domain::{Plan, RunId, SourceId, Timestamp};
use atelier_platform::{
    BucketWidth, CompletionEvent, CompletionRequest, CompletionStream, DatabaseOptions, DatabaseUrls, EngineOptions,
    ErrorKind, LearnOptions, Opened, Platform, PlatformError, PlatformOptions, Prompt, RunKind, RunRecord, RunState,
    StartRun, TenantChange, Usage, UsageQuery,
};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;

use crate::postgres::TestDatabase;

/// How long a test waits for something that must come: far more than it takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// How often a test looks for it.
const LOOK: Duration = Duration::from_millis(50);

pub struct World {
    pub platform: Platform,
    pub operator: Caller,
    pub folder: TempDir,
}

pub fn base_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/atelier-base")
}

pub fn options(data: &Path, workers: usize) -> PlatformOptions {
    PlatformOptions {
        database: database_of(data),
        engine: EngineOptions { kv_blocks: 512, ..EngineOptions::default() },
        threads: 2,
        workers,
        source_roots: vec![data.join("roots")],
        ..PlatformOptions::new(data.join("data"), base_folder())
    }
}

/// Set to `postgres`, rows are there; scripts/test.sh runs the tests both ways.
const TEST_DATABASE: &str = "ATELIER_TEST_DATABASE";

/// The database that belongs to this folder: whoever opens the folder again, in whatever process, finds it by a file.
fn database_of(folder: &Path) -> DatabaseOptions {
    if std::env::var(TEST_DATABASE).as_deref() != Ok("postgres") {
        return DatabaseOptions::Files;
    }
    let file = folder.join("postgres-database");
    // Removed with the server, after the run.
    let database = std::mem::ManuallyDrop::new(match std::fs::read_to_string(&file) {
        Ok(name) => TestDatabase::named(name),
        Err(_) => TestDatabase::create(),
    });
    std::fs::write(&file, &database.name).unwrap();
    let owner = Some(database.owner_url());
    DatabaseOptions::Postgres(DatabaseUrls { application: database.application_url(), owner })
}

impl World {
    pub async fn new(workers: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let Opened { platform, first_operator_key } = Platform::open(options(folder.path(), workers)).await.unwrap();
        let key = first_operator_key.expect("the first start makes a key").reveal();
        let operator = platform.authenticate(&key).await.unwrap();
        Self { platform, operator, folder }
    }

    pub async fn tenant(&self, name: &str, plan: Plan) -> Caller {
        let created = self.platform.create_tenant(&self.operator, name, plan).await.unwrap();
        self.platform.authenticate(&created.key.key.reveal()).await.unwrap()
    }

    pub async fn source(&self, caller: &Caller, files: &[(String, String)]) -> SourceId {
        self.platform.create_source_from_archive(caller, "code", archive(files)).await.unwrap().id
    }

    pub async fn start(&self, caller: &Caller, source: SourceId, kind: RunKind, options: LearnOptions) -> RunId {
        self.platform.start_run(caller, StartRun { source, kind, options }).await.unwrap().id
    }

    pub async fn finished(&self, caller: &Caller, run: RunId) -> RunRecord {
        finished(&self.platform, caller, run).await
    }

    /// A greedy completion's text.
    pub async fn complete(&self, caller: &Caller, model: &str, prompt: &str) -> String {
        let stream = self.platform.complete(caller, greedy(model, prompt, 24)).await.unwrap();
        collect(stream).await.unwrap().0.remove(0)
    }

    pub async fn usage(&self, caller: &Caller) -> (Usage, u64) {
        usage(&self.platform, caller).await
    }
}

pub async fn usage(platform: &Platform, caller: &Caller) -> (Usage, u64) {
    let query = UsageQuery {
        start: Timestamp::from_seconds(platform_day() - 86_400),
        end: None,
        width: BucketWidth::Day,
        group_by_model: false,
        group_by_key: false,
        group_by_project: false,
        group_by_user: false,
        models: Vec::new(),
        keys: Vec::new(),
        projects: Vec::new(),
        users: Vec::new(),
        buckets_max: 31,
    };
    let page = platform.usage_completions(caller, &query).await.unwrap();
    let (mut sum, mut requests) = (Usage::default(), 0);
    for result in page.buckets.iter().flat_map(|bucket| &bucket.results) {
        sum.prompt_tokens += result.tokens.input;
        sum.cached_tokens += result.tokens.input_cached;
        sum.completion_tokens += result.tokens.output;
        requests += result.requests;
    }
    (sum, requests)
}

fn platform_day() -> i64 {
    use atelier_domain::{Clock, SystemClock};
    SystemClock.now().seconds() / 86_400 * 86_400
}

/// Waits until a run ends.
pub async fn finished(platform: &Platform, caller: &Caller, run: RunId) -> RunRecord {
    wait_for(platform, caller, run, |record| record.state.is_final()).await
}

/// Waits until a run's record is as wished.
pub async fn wait_for(
    platform: &Platform,
    caller: &Caller,
    run: RunId,
    wished: impl Fn(&RunRecord) -> bool,
) -> RunRecord {
    let waiting = async {
        loop {
            let record = platform.get_run(caller, run).await.unwrap();
            if wished(&record) {
                return record;
            }
            assert!(!record.state.is_final(), "{record:?}");
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("in time")
}

pub async fn messages(platform: &Platform, caller: &Caller, run: RunId) -> Vec<String> {
    let mut messages = Vec::new();
    let mut after = 0;
    loop {
        let events = platform.run_events(caller, run, after).await.unwrap();
        let Some(last) = events.last() else { return messages };
        after = last.sequence;
        let texts = events.iter().filter(|event| event.kind == "message");
        messages.extend(texts.filter_map(|event| event.body["message"].as_str().map(str::to_owned)));
    }
}

pub fn greedy(model: &str, prompt: &str, tokens_max: u32) -> CompletionRequest {
    CompletionRequest {
        model: model.to_owned(),
        prompts: vec![Prompt::Text(prompt.to_owned())],
        suffix: None,
        n: 1,
        tokens_max: Some(tokens_max),
        temperature: 0.0,
        top_p: 1.0,
        top_k: 0,
        seed: Some(1),
        stop: Vec::new(),
        logprobs: None,
        echo: false,
    }
}

/// The texts by choice, and the usage.
pub async fn collect(mut stream: CompletionStream) -> Result<(Vec<String>, Usage), PlatformError> {
    let mut texts: Vec<String> = Vec::new();
    while let Some(event) = stream.next().await {
        match event {
            CompletionEvent::Text { index, text, .. } => {
                texts.resize(texts.len().max(index as usize + 1), String::new());
                texts[index as usize].push_str(&text);
            }
            CompletionEvent::Finished { .. } => {}
            CompletionEvent::Done { usage } => return Ok((texts, usage)),
            CompletionEvent::Failed(error) => return Err(error),
        }
    }
    panic!("a stream without an end");
}

pub fn archive(files: &[(String, String)]) -> Bytes {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    Bytes::from(builder.into_inner().unwrap().finish().unwrap())
}

/// A small code base in a style of its own: every function wraps its work the same way around other words.
pub fn house_style() -> Vec<(String, String)> {
    const VERBS: [&str; 5] = ["load", "merge", "price", "route", "score"];
    const NOUNS: [&str; 12] = [
        "order", "parcel", "ledger", "driver", "window", "basket", "coupon", "invoice", "depot", "shift", "refund",
        "label",
    ];
    let function = |verb: &str, noun: &str, other: &str, number: usize| {
        format!(
            "@traced(\"{verb}.{noun}\")\ndef {verb}_{noun}(ctx: Ctx, {noun}: {title}, *, {other}_limit: int = {number}) -> Outcome[{title}]:\n    \
             \"\"\"Outcome of the {verb} step for one {noun}.\"\"\"\n    with ctx.guard({noun}.key, limit={other}_limit) as guard:\n        \
             guard.require({noun}.is_open, Reason.{upper}_CLOSED)\n        {other}_rows = guard.fetch({noun}.{other}_ids)\n        \
             return Outcome.done({noun}.with_{verb}({other}_rows), cost=guard.cost + {number})\n\n\n",
            title = noun[..1].to_uppercase() + &noun[1..],
            upper = noun.to_uppercase(),
        )
    };
    NOUNS
        .iter()
        .enumerate()
        .map(|(file, noun)| {
            let functions = VERBS.iter().enumerate().map(|(number, verb)| {
                function(verb, noun, NOUNS[(file + number + 1) % NOUNS.len()], 3 + 7 * file + number)
            });
            (format!("house/{noun}.py"), functions.collect())
        })
        .collect()
}

/// What the style writes after a signature.
pub const HOUSE_PROMPT: &str = "@traced(\"load.voucher\")\ndef load_voucher(ctx: Ctx, voucher: Voucher, *, order_limit: int = 9) -> Outcome[Voucher]:\n";

/// A short training with little data in each step: seconds, not minutes.
pub fn short(steps_max: usize) -> LearnOptions {
    LearnOptions { steps_max: Some(steps_max), window_tokens: Some(64), epochs: Some(20), ..LearnOptions::default() }
}

pub fn is_live(record: &RunRecord) -> bool {
    record.state == RunState::Live
}

pub fn to_plan(plan: Plan) -> TenantChange {
    TenantChange { plan: Some(plan), ..TenantChange::default() }
}

/// What kind of trouble it was, if it was any.
pub fn kind<T>(result: Result<T, PlatformError>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}
