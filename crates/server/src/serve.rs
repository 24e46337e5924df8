//! `atelier serve`: data folder and base model → a socket that answers.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use atelier_api::Metrics;
use atelier_platform::{
    BlobOptions, DatabaseOptions, DatabaseUrls, Opened, Platform, PlatformOptions, RootKeyOptions, S3Options,
};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::{BlobArgs, DatabaseArgs, EngineArgs, RootKeyArgs, ServeArgs, WeightsArg};
use crate::client::{OPERATOR_KEY_FILE, Place, URL_FILE};
use crate::environment;
use crate::listen::{Listen, Listener};
use crate::output::Output;

/// Where the base model that ships with Atelier lies, from the root of its repository or beside the binary.
const SHIPPED_BASE: &str = "models/atelier-base";

/// Runs a server until it is told to stop.
pub async fn run(place: &Place, args: ServeArgs, output: Output) -> Result<()> {
    let data = place.data.as_path();
    let listen = Listen::from_args(args.listen)?;
    let mut options = platform_options(data, &args.engine, &args.database, args.source_roots.clone(), args.workers)?;
    options.blobs = blob_options(&args.blobs)?;
    options.root_key = root_key_options(&args.root_key)?;
    options.erasure_log = args.erasure_log;
    options.private_issuers = args.private_issuers;
    let server = Server::start(data, options, listen).await?;
    announce(&server, place, output)?;
    StopSignal::listen()?.received().await;
    output.say("Stopping: open streams get a moment to end.");
    server.stop().await;
    Ok(())
}

/// A server that runs.
pub struct Server {
    /// The use cases, for the demo that runs in the same process.
    pub platform: Platform,
    /// Where it listens.
    pub url: String,
    /// The operator's key, when this start was the first on the data folder.
    pub first_operator_key: Option<String>,
    url_file: PathBuf,
    stop: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Opens the data folder, loads the base, binds the socket, and serves in the background.
    pub async fn start(data: &Path, options: PlatformOptions, listen: Listen) -> Result<Self> {
        // The socket first: a port in use is found before anything is created or loaded.
        let listener = Listener::bind(listen).await?;
        let Opened { platform, first_operator_key } = Platform::open(options).await?;
        let first_operator_key = first_operator_key.map(|key| key.reveal().to_owned());
        if let Some(key) = &first_operator_key {
            write_secret(&data.join(OPERATOR_KEY_FILE), key)?;
        }
        let url = listener.url().to_owned();
        let url_file = data.join(URL_FILE);
        fs::write(&url_file, format!("{url}\n"))?;
        let metrics = Arc::new(Metrics::default());
        let router = atelier_api::router(platform.clone(), Arc::clone(&metrics), &url);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let task = tokio::spawn(listener.serve(router, metrics, stopped));
        Ok(Self { platform, url, first_operator_key, url_file, stop, task })
    }

    /// Stops accepting, lets streams end, checkpoints what is learning.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        self.platform.shutdown().await;
        if tokio::time::timeout(atelier_domain::limits::SHUTDOWN_GRACE, self.task).await.is_err() {
            tracing::warn!("some connections were still open when the server stopped");
        }
        // The file only helps commands to find us; a left one is harmless.
        let _ = fs::remove_file(&self.url_file);
    }
}

/// Flags → what the platform opens.
pub fn platform_options(
    data: &Path,
    engine: &EngineArgs,
    database: &DatabaseArgs,
    source_roots: Vec<PathBuf>,
    workers: usize,
) -> Result<PlatformOptions> {
    let mut options = PlatformOptions::new(data.to_owned(), find_base(engine.base.as_deref())?);
    options.database = database_options(database);
    options.weight_format = match engine.weights {
        WeightsArg::Bf16 => atelier_platform::WeightFormat::Bf16,
        WeightsArg::Int8 => atelier_platform::WeightFormat::Int8,
    };
    if let Some(threads) = engine.threads {
        options.threads = threads.get();
    }
    if let Some(tier) = &engine.simd {
        options.tier = Some(tier.parse().map_err(|error| anyhow::anyhow!("--simd / ATELIER_SIMD: {error}"))?);
    }
    options.engine.adapter_bytes_max = engine.adapter_memory << 20;
    if let Some(missing) = source_roots.iter().find(|root| !root.is_dir()) {
        anyhow::bail!("--source-root {} is no folder.", missing.display());
    }
    options.source_roots = source_roots;
    options.workers = workers;
    Ok(options)
}

/// Flags → where rows are.
pub fn database_options(database: &DatabaseArgs) -> DatabaseOptions {
    match &database.database {
        Some(application) => DatabaseOptions::Postgres(DatabaseUrls {
            application: application.clone(),
            owner: database.database_owner.clone(),
        }),
        None => DatabaseOptions::Files,
    }
}

/// Flags and environment → where blobs are.
pub fn blob_options(args: &BlobArgs) -> Result<BlobOptions> {
    let Some(address) = &args.blobs else { return Ok(BlobOptions::Folder) };
    Ok(BlobOptions::S3(S3Options {
        address: address.parse().context("--blobs / ATELIER_BLOBS")?,
        endpoint: args.blobs_endpoint.clone(),
        region: args.blobs_region.clone(),
        path_style: args.blobs_path_style,
        allow_http: args.blobs_allow_http,
        settings: environment::s3_settings(),
    }))
}

/// Flag and environment → where the root key is.
pub fn root_key_options(args: &RootKeyArgs) -> Result<RootKeyOptions> {
    match (&args.root_key, environment::root_key()?) {
        (Some(_), Some(_)) => anyhow::bail!("the root key is in ATELIER_ROOT_KEY and in a file: say one of them"),
        (Some(file), None) => Ok(RootKeyOptions::File(file.clone())),
        (None, Some(key)) => Ok(RootKeyOptions::Given(key)),
        (None, None) => Ok(RootKeyOptions::InFolder),
    }
}

/// The base model's folder: as told, or the one that ships with Atelier.
pub fn find_base(told: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = told {
        return Ok(path.to_owned());
    }
    let beside_binary = std::env::current_exe().ok();
    let starts = [Some(PathBuf::from(".")), beside_binary];
    starts
        .iter()
        .flatten()
        .flat_map(|start| start.ancestors().map(|folder| folder.join(SHIPPED_BASE)).collect::<Vec<_>>())
        .find(|folder| folder.join("config.json").exists())
        .with_context(|| format!("No base model: {SHIPPED_BASE} is not here. Name a folder with --base."))
}

fn announce(server: &Server, place: &Place, output: Output) -> Result<()> {
    let info = server.platform.base_info();
    let object = json!({
        "url": server.url,
        "base": {"name": info.name, "parameters": info.parameters, "digest": info.digest.to_string()},
        "operator_key": server.first_operator_key,
    });
    output.result(&object, || {
        let mut text = format!(
            "Atelier serves {} ({:.1} million parameters, {} kernels) on {}\n",
            info.name,
            info.parameters as f64 / 1e6,
            info.tier,
            server.url
        );
        if let Some(key) = &server.first_operator_key {
            text.push_str(&format!(
                "Operator key (shown only now, kept in {OPERATOR_KEY_FILE} of the data folder): {key}\n"
            ));
        }
        text.push_str(&format!("Next: atelier tenant create NAME --plan tuned{}", place.flag()));
        text
    })
}

fn write_secret(path: &Path, secret: &str) -> Result<()> {
    let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    writeln!(file, "{secret}")?;
    file.sync_all()?;
    Ok(())
}

/// Ctrl-C or SIGTERM, from the moment this is made: until then either ends the process.
pub struct StopSignal {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignal {
    /// Takes the signals.
    pub fn listen() -> Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for one; one that came meanwhile counts.
    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
