//! Opens and closes everything: store, base model, engine, workers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use atelier_access::{ApiKey, Caller};
use atelier_domain::{Digest, SystemClock, TenantId, limits};
use atelier_engine::{Engine, EngineOptions};
use atelier_model::{Compute, LoadOptions, Model, Tier, WeightFormat};
use atelier_store::{BlobOptions, DatabaseOptions, KeyRotation, OpenOptions, RootKeyOptions, Store, StoreError};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::adapters::{Adapters, domain_digest};
use crate::error::PlatformError;
use crate::export::Exports;
use crate::limits::Limits;
use crate::sign_on::SignOnService;
use crate::training_base::TrainingBase;
use crate::watch::{self, OpenStreams};
use crate::worker::{self, RunningJobs};

/// What to open.
#[derive(Debug, Clone)]
pub struct PlatformOptions {
    /// The folder that everything lives under that is not in a database.
    pub data: PathBuf,
    /// Where rows are.
    pub database: DatabaseOptions,
    /// Where blobs are.
    pub blobs: BlobOptions,
    /// Where the root key is, with which the keys of all data are wrapped.
    pub root_key: RootKeyOptions,
    /// The file that names erased tenants, so that a restored backup does not bring them back; in the data folder when
    /// absent.
    pub erasure_log: Option<PathBuf>,
    /// The base model's folder, in Hugging Face layout.
    pub base: PathBuf,
    /// How to hold the base's weights.
    pub weight_format: WeightFormat,
    /// SIMD tier; the best there is when absent.
    pub tier: Option<Tier>,
    /// Threads that do arithmetic for serving, and as many again for training while it runs.
    pub threads: usize,
    /// The engine's sizes.
    pub engine: EngineOptions,
    /// Whether issuers of tenants may lie at addresses that are not public: in the operator's own network, or here.
    pub private_issuers: bool,
    /// Folders of the server beneath which a source may lie.
    pub source_roots: Vec<PathBuf>,
    /// Runs worked on at once in this process; 0 leaves them to another one.
    pub workers: usize,
}

impl PlatformOptions {
    /// SQLite files, blobs beside them, bf16 weights, the best SIMD tier, every core, one worker, no source roots.
    #[must_use]
    pub fn new(data: PathBuf, base: PathBuf) -> Self {
        Self {
            data,
            database: DatabaseOptions::Files,
            blobs: BlobOptions::Folder,
            root_key: RootKeyOptions::InFolder,
            erasure_log: None,
            base,
            weight_format: WeightFormat::Bf16,
            tier: None,
            threads: thread::available_parallelism().map_or(1, usize::from),
            engine: EngineOptions::default(),
            private_issuers: false,
            source_roots: Vec::new(),
            workers: 1,
        }
    }
}

/// Whether the walls between tenants stand: what is wrong with them, a line each. None where there is no database yet.
///
/// # Errors
/// When the database cannot be asked.
pub async fn inspect_walls(data: &Path, database: &DatabaseOptions) -> Result<Option<Vec<String>>, PlatformError> {
    let findings = atelier_store::inspect(data, database).await.map_err(PlatformError::at_start)?;
    Ok(findings.map(|findings| findings.iter().map(ToString::to_string).collect()))
}

/// Where the root key is, when it is there and the one that the data is sealed with. None where nothing is sealed yet.
///
/// # Errors
/// When it is not there, or another one; when the database cannot be asked.
pub async fn inspect_root_key(
    data: &Path,
    database: &DatabaseOptions,
    root_key: &RootKeyOptions,
) -> Result<Option<String>, PlatformError> {
    atelier_store::inspect_root_key(data, database, root_key).await.map_err(PlatformError::at_start)
}

/// Changes the root key and, where that is asked for, the keys of all data. No server may run on the data.
///
/// # Errors
/// When one does; when the root key is not there, or another one; when a new one can be kept nowhere.
///
/// Gives the tenants whose data is still to be sealed anew, by the next start that finds their bucket.
pub async fn rotate_keys(
    data: PathBuf,
    database: DatabaseOptions,
    blobs: BlobOptions,
    root_key: RootKeyOptions,
    rotation: &KeyRotation,
) -> Result<Vec<TenantId>, PlatformError> {
    let clock = Arc::new(SystemClock);
    let options = OpenOptions { folder: data, database, blobs, root_key, erasure_log: None, clock };
    atelier_store::rotate_keys(options, rotation).await.map_err(PlatformError::at_start)
}

/// An open platform.
#[derive(Debug)]
pub struct Opened {
    /// The platform.
    pub platform: Platform,
    /// The operator's first key, at the very first start on a data folder only. Show it once.
    pub first_operator_key: Option<ApiKey>,
}

/// The base model, described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseInfo {
    /// Its folder's name.
    pub name: String,
    /// Of its content.
    pub digest: Digest,
    /// Which architecture it is of.
    pub family: String,
    /// Weights, tied ones once.
    pub parameters: usize,
    /// Tokens that prompt and completion may have together.
    pub context_tokens_max: usize,
    /// Memory that its weights take.
    pub weight_bytes: usize,
    /// The SIMD tier in use.
    pub tier: String,
    /// Threads that do its arithmetic.
    pub threads: usize,
}

/// Whether requests are taken, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// They are.
    Ready,
    /// The server is closing.
    Draining,
    /// What is used cannot be written down, so nothing is completed until it can.
    LedgerBehind,
    /// The database does not answer.
    DatabaseAway,
    /// The blob store does not answer.
    BlobsAway,
}

/// Numbers about the engine, none about a tenant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PlatformStats {
    /// Sequences in the batch, or waiting in it for their adapter.
    pub sequences_running: usize,
    /// Sequences waiting for a slot.
    pub sequences_queued: usize,
    /// Free blocks of the KV cache.
    pub kv_blocks_free: usize,
    /// Adapters in memory.
    pub adapters_resident: usize,
    /// Memory that they take.
    pub adapter_bytes: usize,
    /// Prompt tokens since the start, found in the cache or not.
    pub prompt_tokens: u64,
    /// Tokens generated since the start.
    pub completion_tokens: u64,
}

/// The use cases. Clones are the same platform.
#[derive(Clone)]
pub struct Platform {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    base: Arc<Model>,
    base_name: String,
    engine: Engine,
    adapters: Arc<Adapters>,
    limits: Arc<Limits>,
    followers: Arc<Limits>,
    training_base: TrainingBase,
    sign_on: SignOnService,
    source_roots: Vec<PathBuf>,
    /// Archives and folders that are being read.
    inspections: Semaphore,
    /// Audit trails that are being checked.
    audit_checks: Semaphore,
    exports: Exports,
    running_jobs: RunningJobs,
    open: AtomicBool,
    /// Ends the workers.
    stop: CancellationToken,
    workers: TaskTracker,
    /// Ends the streams that did not end by themselves.
    cut: CancellationToken,
    /// Requests until they are settled.
    tasks: TaskTracker,
    streams: Arc<OpenStreams>,
    /// Ends the task that watches the streams, when there are none any more.
    streams_ended: CancellationToken,
}

impl std::fmt::Debug for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Platform").field("base", &self.inner.base_name).finish_non_exhaustive()
    }
}

impl Platform {
    /// Opens the data folder, loads the base, starts the engine and the workers. What a crash left open is taken up
    /// again: reservations are closed at their last checkpoint, runs go on from theirs.
    ///
    /// # Errors
    /// When the folder is another server's, newer than this program or cannot be written; when the base is missing,
    /// damaged or not supported.
    pub async fn open(options: PlatformOptions) -> Result<Opened, PlatformError> {
        // The base first: a wrong one leaves no data folder behind.
        let base = load_base(&options).await?;
        let clock = Arc::new(SystemClock);
        let store = Store::open(OpenOptions {
            folder: options.data.clone(),
            database: options.database.clone(),
            blobs: options.blobs.clone(),
            root_key: options.root_key.clone(),
            erasure_log: options.erasure_log.clone(),
            clock,
        })
        .await
        .map_err(PlatformError::at_start)?;
        let first_operator_key = store.bootstrap_operator_key().await?;
        let adapters = Arc::new(Adapters::new(store.clone(), Arc::clone(&base)));
        let engine = Engine::start(Arc::clone(&base), Arc::clone(&adapters) as _, options.engine.clone());
        let inner = Inner {
            training_base: TrainingBase::new(options.base.clone(), options.weight_format, &base),
            base_name: folder_name(&options.base),
            store,
            base,
            engine,
            adapters,
            limits: Arc::new(Limits::of_requests()),
            followers: Arc::new(Limits::of_followers()),
            sign_on: SignOnService::new(options.private_issuers),
            source_roots: options.source_roots,
            inspections: Semaphore::new(limits::SOURCE_INSPECTIONS_MAX),
            audit_checks: Semaphore::new(limits::AUDIT_CHECKS_MAX),
            exports: Exports::default(),
            running_jobs: RunningJobs::default(),
            open: AtomicBool::new(true),
            stop: CancellationToken::new(),
            workers: TaskTracker::new(),
            cut: CancellationToken::new(),
            tasks: TaskTracker::new(),
            streams: Arc::default(),
            streams_ended: CancellationToken::new(),
        };
        let platform = Self { inner: Arc::new(inner) };
        tokio::spawn(watch::watch_streams(platform.clone()));
        for _ in 0..options.workers {
            platform.inner.workers.spawn(worker::work(platform.clone()));
        }
        Ok(Opened { platform, first_operator_key })
    }

    /// Takes nothing new, lets streams end for a moment and cuts them then, leaves runs where their last checkpoint
    /// is, and closes the store. Everything that was accepted is settled when it returns.
    pub async fn shutdown(&self) {
        let inner = &*self.inner;
        inner.open.store(false, Ordering::Release);
        inner.stop.cancel();
        inner.running_jobs.stop_all();
        inner.tasks.close();
        inner.workers.close();
        if tokio::time::timeout(limits::SHUTDOWN_GRACE, inner.tasks.wait()).await.is_err() {
            inner.cut.cancel();
            inner.tasks.wait().await;
        }
        inner.streams_ended.cancel();
        inner.workers.wait().await;
        let engine = inner.engine.clone();
        if tokio::task::spawn_blocking(move || engine.shutdown()).await.is_err() {
            tracing::error!("the engine could not be stopped");
        }
        inner.store.close().await;
    }

    /// Whether requests are taken, and what they need is there.
    pub async fn readiness(&self) -> Readiness {
        if self.check_open().is_err() {
            return Readiness::Draining;
        }
        if self.inner.store.ledger_is_behind() {
            return Readiness::LedgerBehind;
        }
        match self.inner.store.check().await {
            Ok(()) => Readiness::Ready,
            Err(StoreError::BlobsUnreachable { source }) => {
                tracing::error!(error = &*source as &dyn std::error::Error, "the blob store cannot be reached");
                Readiness::BlobsAway
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the database does not answer");
                Readiness::DatabaseAway
            }
        }
    }

    /// How busy the engine is.
    #[must_use]
    pub fn stats(&self) -> PlatformStats {
        let engine = self.inner.engine.stats();
        PlatformStats {
            sequences_running: engine.running + engine.waiting_for_adapter,
            sequences_queued: engine.queued,
            kv_blocks_free: engine.kv_blocks_free,
            adapters_resident: engine.adapters_resident,
            adapter_bytes: engine.adapter_bytes,
            prompt_tokens: engine.prompt_tokens_total,
            completion_tokens: engine.generated_tokens_total,
        }
    }

    /// The base model, described.
    #[must_use]
    pub fn base_info(&self) -> BaseInfo {
        let (base, config) = (&self.inner.base, self.inner.base.config());
        BaseInfo {
            name: self.inner.base_name.clone(),
            digest: domain_digest(base.digest()),
            family: format!("{:?}", config.family),
            parameters: parameters(config),
            context_tokens_max: config.context_tokens_max,
            weight_bytes: base.weight_bytes(),
            tier: base.compute().tier().to_string(),
            threads: base.compute().threads(),
        }
    }

    /// A key's text → who it is.
    ///
    /// # Errors
    /// When no living key reads so.
    pub async fn authenticate(&self, key_text: &str) -> Result<Caller, PlatformError> {
        Ok(self.inner.store.authenticate(key_text).await?)
    }

    /// The base as training needs it; in memory as long as somebody holds it. For the demo and measurements.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub async fn base_model_for_training(&self) -> Result<Arc<Model>, PlatformError> {
        self.inner.training_base.get().await
    }

    pub(crate) fn check_open(&self) -> Result<(), PlatformError> {
        if self.inner.open.load(Ordering::Acquire) { Ok(()) } else { Err(PlatformError::closing()) }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }

    pub(crate) fn base(&self) -> &Arc<Model> {
        &self.inner.base
    }

    pub(crate) fn base_name(&self) -> &str {
        &self.inner.base_name
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    pub(crate) fn adapters(&self) -> &Adapters {
        &self.inner.adapters
    }

    pub(crate) fn limits(&self) -> &Arc<Limits> {
        &self.inner.limits
    }

    pub(crate) fn followers(&self) -> &Arc<Limits> {
        &self.inner.followers
    }

    pub(crate) fn sign_on(&self) -> &SignOnService {
        &self.inner.sign_on
    }

    pub(crate) fn source_roots(&self) -> &[PathBuf] {
        &self.inner.source_roots
    }

    pub(crate) fn inspections(&self) -> &Semaphore {
        &self.inner.inspections
    }

    pub(crate) fn audit_checks(&self) -> &Semaphore {
        &self.inner.audit_checks
    }

    pub(crate) fn exports(&self) -> &Exports {
        &self.inner.exports
    }

    pub(crate) fn running_jobs(&self) -> &RunningJobs {
        &self.inner.running_jobs
    }

    pub(crate) fn stopped(&self) -> &CancellationToken {
        &self.inner.stop
    }

    pub(crate) fn cut(&self) -> CancellationToken {
        self.inner.cut.clone()
    }

    pub(crate) fn open_streams(&self) -> &Arc<OpenStreams> {
        &self.inner.streams
    }

    pub(crate) fn streams_ended(&self) -> &CancellationToken {
        &self.inner.streams_ended
    }

    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.inner.tasks
    }
}

/// Loads a base model's folder and says in one line what it is: a check before a server is started on it.
///
/// # Errors
/// When it is missing, damaged or not supported.
pub fn inspect_base(folder: &Path) -> Result<String, PlatformError> {
    let load = LoadOptions { format: WeightFormat::Bf16, with_backward: false };
    let model = Model::load(Arc::new(Compute::new(Tier::detect(), 1)), folder, load).map_err(PlatformError::Base)?;
    let config = model.config();
    Ok(format!(
        "{:?}, {:.1} million parameters, {} tokens of context",
        config.family,
        parameters(config) as f64 / 1e6,
        config.context_tokens_max
    ))
}

async fn load_base(options: &PlatformOptions) -> Result<Arc<Model>, PlatformError> {
    let tier = options.tier.unwrap_or_else(Tier::detect);
    if !tier.available() {
        return Err(PlatformError::NoSuchTier { tier: tier.to_string() });
    }
    let (threads, folder) = (options.threads.max(1), options.base.clone());
    let load = LoadOptions { format: options.weight_format, with_backward: false };
    let model = tokio::task::spawn_blocking(move || Model::load(Arc::new(Compute::new(tier, threads)), &folder, load))
        .await
        .map_err(PlatformError::task)?
        .map_err(PlatformError::Base)?;
    Ok(Arc::new(model))
}

fn folder_name(folder: &Path) -> String {
    let real = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    real.file_name().map_or_else(|| "base".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn parameters(config: &atelier_model::Config) -> usize {
    let projections: usize = atelier_model::Projection::ALL
        .iter()
        .map(|projection| {
            let (n_out, n_in) = projection.shape(config);
            n_out * n_in
        })
        .sum();
    let norms = 2 * config.hidden_size + if config.qk_norm { 2 * config.head_dim } else { 0 };
    let biases = if config.qkv_bias { (config.head_count + 2 * config.kv_head_count) * config.head_dim } else { 0 };
    let embedding = config.vocab_size * config.hidden_size;
    let head = if config.tied_head { 0 } else { embedding };
    config.layer_count * (projections + norms + biases) + embedding + head + config.hidden_size
}
