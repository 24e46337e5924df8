//! The store itself: the folder with its lock and its secrets, and the database.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use atelier_access::{Caller, Pepper};
use atelier_domain::limits::CONTROL_READERS_MAX;
use atelier_domain::{Clock, RequestId, TenantId, Timestamp};
use tokio::sync::{Mutex, Notify};

use crate::audit::chain::ChainKey;
use crate::audit::observer::Observer;
use crate::blobs::{BlobOptions, Blobs};
use crate::data_keys::DataKeyCache;
use crate::erasing;
use crate::error::StoreError;
use crate::key_cache::KeyCache;
use crate::ledger::Ledger;
use crate::migrate;
use crate::places::{CONTROL_SCHEMA, TENANTS_SCHEMA, TenantPlaces};
use crate::private_files;
use crate::root_key::{self, RootKey, RootKeyOptions};
use crate::sql::{Database, Hold, Scope, Server, keep_private, values};
use crate::walls;

pub(crate) const CONTROL_FILE: &str = "control.db";
const LOCK_FILE: &str = "lock";
const PEPPER_FILE: &str = "pepper";
pub(crate) const TENANTS_FOLDER: &str = "tenants";
const BLOBS_FOLDER: &str = "blobs";
/// Only the server's own user may look into the data folder.
const FOLDER_MODE: u32 = 0o700;

/// What a store is opened with.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// The data folder; made when it is not there.
    pub folder: PathBuf,
    /// Where rows are.
    pub database: DatabaseOptions,
    /// Where blobs are.
    pub blobs: BlobOptions,
    /// Where the key is that wraps the keys of all data.
    pub root_key: RootKeyOptions,
    /// The file that names whom it must never hold again, so that a restored backup does not bring them back; in the data
    /// folder when absent.
    pub erasure_log: Option<PathBuf>,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
}

/// Where rows are.
#[derive(Debug, Clone, Default)]
pub enum DatabaseOptions {
    /// In SQLite files of the data folder, one for each tenant.
    #[default]
    Files,
    /// In a PostgreSQL database. The data folder holds secrets and, unless they are elsewhere, blobs.
    Postgres(DatabaseUrls),
}

impl DatabaseOptions {
    /// What people call the control database.
    fn called(&self, folder: &Path) -> String {
        match self {
            Self::Files => folder.join(CONTROL_FILE).display().to_string(),
            Self::Postgres(_) => "the PostgreSQL database".to_owned(),
        }
    }
}

/// The addresses of a PostgreSQL database. They hold passwords, so they print as nothing.
#[derive(Clone)]
pub struct DatabaseUrls {
    /// `postgres://user@host/database` of the application's role, which owns nothing.
    pub application: String,
    /// The same of the role that owns the schema; without it the schema must be up to date.
    pub owner: Option<String>,
}

impl std::fmt::Debug for DatabaseUrls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseUrls").field("has_owner", &self.owner.is_some()).finish_non_exhaustive()
    }
}

/// The store. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) control: Database,
    pub(crate) server: Option<ServerSide>,
    pub(crate) tenants: TenantPlaces,
    pub(crate) blobs: Blobs,
    pub(crate) pepper: Pepper,
    pub(crate) root_key: RootKey,
    pub(crate) erasure_log: PathBuf,
    pub(crate) chain_key: ChainKey,
    pub(crate) observer: Arc<Observer>,
    pub(crate) keys: KeyCache,
    pub(crate) data_keys: DataKeyCache,
    pub(crate) ledger: Ledger,
    pub(crate) job_signal: Notify,
    /// Held as long as the store lives: the lock goes with the file handle.
    lock: File,
}

/// What a store on PostgreSQL has besides.
#[derive(Debug)]
pub(crate) struct ServerSide {
    pub(crate) server: Server,
    pub(crate) hold: Hold,
    /// Held by a tenant's move: one at a time.
    pub(crate) moving: Mutex<()>,
}

/// The databases, open.
struct Opened {
    control: Database,
    ledger: Database,
    tenants: TenantPlaces,
    server: Option<ServerSide>,
}

impl Store {
    /// Opens the data folder: locks it, brings the schemas up to date, settles what a killed server left open, seals
    /// what an older version left plain, makes its jobs claimable again and lets the heads of audit chains follow. Must
    /// be called inside a tokio runtime, on which the ledger's writer then lives.
    ///
    /// # Errors
    /// [`StoreError::FolderLocked`], [`StoreError::NewerSchema`], [`StoreError::OlderSchema`], [`StoreError::DiskFull`],
    /// [`StoreError::WallsDown`], [`StoreError::Unreachable`] and what the system refuses;
    /// [`StoreError::RootKeyMissing`], [`StoreError::RootKeyWrong`], [`StoreError::RootKeyMalformed`];
    /// [`StoreError::BlobsUnreachable`], [`StoreError::BlobsMisnamed`], [`StoreError::BlobsElsewhere`],
    /// [`StoreError::BlobsOfOthers`]; with plain data there, or blobs that go to a bucket,
    /// [`StoreError::OthersAtWork`].
    pub async fn open(options: OpenOptions) -> Result<Self, StoreError> {
        let OpenOptions { folder, database, blobs, root_key, erasure_log, clock } = options;
        make_folders(&folder)?;
        let lock = lock_folder(&folder)?;
        let opened = match &database {
            DatabaseOptions::Files => open_files(&folder, clock.now()).await?,
            DatabaseOptions::Postgres(urls) => open_postgres(urls, clock.now()).await?,
        };
        let is_new = opened.control.fetch_optional("SELECT id FROM keys LIMIT 1", values![]).await?.is_none();
        if is_new && let Some(trace) = trace_of_tenants(&folder) {
            let what = format!("is empty, although there are tenants' data in {trace}. Nothing is served over them");
            return Err(StoreError::damaged(database.called(&folder), what));
        }
        let pepper = read_or_make_pepper(&folder.join(PEPPER_FILE), is_new)?;
        let root_key = root_key::settle(&opened.control, &folder, &root_key, clock.now()).await?;
        let is_alone = match &opened.server {
            Some(ServerSide { hold, .. }) => hold.is_alone().await,
            None => true,
        };
        if is_alone {
            Ledger::recover(&opened.control, clock.now()).await?;
        }
        let chain_key = ChainKey::new(&pepper);
        let store = Self {
            inner: Arc::new(Inner {
                observer: Observer::start(opened.control.clone(), chain_key.clone(), Arc::clone(&clock)),
                ledger: Ledger::start(opened.ledger, Arc::clone(&clock)),
                tenants: opened.tenants,
                blobs: Blobs::open(&folder.join(BLOBS_FOLDER), &blobs, opened.control.clone())?,
                keys: KeyCache::default(),
                data_keys: DataKeyCache::default(),
                job_signal: Notify::new(),
                control: opened.control,
                server: opened.server,
                clock,
                pepper,
                root_key,
                erasure_log: erasure_log.unwrap_or_else(|| folder.join(erasing::LOG_FILE)),
                chain_key,
                lock,
            }),
        };
        store.settle_blobs(&folder.join(BLOBS_FOLDER), is_alone).await?;
        if is_alone {
            store.finish_erasures().await?;
            store.finish_moves().await?;
            store.finish_blob_moves().await?;
        }
        store.seal_what_is_plain(is_alone).await?;
        if is_alone {
            store.recover_jobs().await?;
            store.catch_up_all().await?;
        }
        if let Some(ServerSide { hold, .. }) = &store.inner.server {
            hold.share().await?;
        }
        Ok(store)
    }

    /// The present time by the store's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// An id for a request that comes in now.
    ///
    /// # Panics
    /// When the operating system has no random bytes: nothing could be kept secret then.
    #[must_use]
    #[expect(clippy::expect_used, reason = "without random bytes no server may go on")]
    pub fn new_request_id(&self) -> RequestId {
        RequestId::generate(self.now(), random_bytes().expect("the operating system gives random bytes"))
    }

    /// Whether the database and the blob store answer: for readiness.
    ///
    /// # Errors
    /// What they say.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.inner.control.fetch_optional("SELECT 1 AS one", values![]).await?;
        self.inner.blobs.check().await
    }

    /// How many connections to the database lie idle, and how many of those are not as they were when they were new:
    /// inside a transaction, or with a tenant set. More than none of the latter is a wall that is down.
    ///
    /// # Errors
    /// What the database says.
    pub async fn idle_connections(&self) -> Result<(usize, usize), StoreError> {
        match &self.inner.server {
            Some(ServerSide { server, .. }) => server.idle_connections().await,
            None => Ok((0, 0)),
        }
    }

    /// Commits what the ledger still holds and closes every file. Calls after this fail with
    /// [`StoreError::ShuttingDown`].
    pub async fn close(&self) {
        self.inner.observer.close().await;
        self.inner.ledger.close().await;
        self.inner.tenants.close_all().await;
        self.inner.control.close().await;
        if let Some(ServerSide { server, hold, .. }) = &self.inner.server {
            server.close().await;
            hold.release().await;
        }
        // Another server may have the folder from here on; a lock that cannot be given back ends with the process.
        let _ = self.inner.lock.unlock();
    }

    /// The control database, all of it.
    pub(crate) fn control(&self) -> &Database {
        &self.inner.control
    }

    /// The control database as far as it is about one tenant.
    pub(crate) fn control_for(&self, tenant: TenantId) -> Database {
        self.inner.control.in_scope(Scope::Tenant(tenant))
    }

    /// The database of a tenant; not found once the tenant is deleted.
    pub(crate) async fn tenant_database(&self, tenant: TenantId) -> Result<Arc<Database>, StoreError> {
        self.inner.tenants.get(tenant, self.now()).await
    }

    /// Who does what the store does of itself.
    pub(crate) fn system() -> Caller {
        Caller::system("store")
    }
}

/// Random bytes from the operating system.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| StoreError::io("get random bytes", std::io::Error::other(error.to_string())))?;
    Ok(bytes)
}

fn make_folders(folder: &Path) -> Result<(), StoreError> {
    for part in [folder.to_owned(), folder.join(TENANTS_FOLDER), folder.join(BLOBS_FOLDER)] {
        DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(&part)
            .map_err(|error| StoreError::io(format!("create the folder {}", part.display()), error))?;
    }
    Ok(())
}

/// Refuses a folder whose control database is gone while the rest is there: a new one would silently begin anew, and
/// what the folder holds could never be read again.
pub(crate) fn check_control_file(folder: &Path) -> Result<(), StoreError> {
    if fs::metadata(folder.join(CONTROL_FILE)).is_ok_and(|metadata| metadata.len() > 0) {
        Ok(())
    } else {
        refuse_over_data(folder)
    }
}

/// The same of a file that is a database, and nobody's yet.
pub(crate) async fn check_control(control: &Database, folder: &Path) -> Result<(), StoreError> {
    if migrate::has_history(control).await? { Ok(()) } else { refuse_over_data(folder) }
}

fn refuse_over_data(folder: &Path) -> Result<(), StoreError> {
    let file = folder.join(CONTROL_FILE);
    // The pepper is made after the control database.
    let pepper = folder.join(PEPPER_FILE);
    let trace = pepper.exists().then(|| pepper.display().to_string()).or_else(|| trace_of_tenants(folder));
    match trace {
        None => Ok(()),
        Some(trace) => Err(StoreError::damaged(
            file.display(),
            format!(
                "is missing or empty, although there is {trace}. Where rows are in PostgreSQL, say so with --database; to \
                 begin anew, name another folder with --data"
            ),
        )),
    }
}

/// Something in the folder that only a server with tenants leaves there.
fn trace_of_tenants(folder: &Path) -> Option<String> {
    let places = [folder.join(TENANTS_FOLDER), folder.join(BLOBS_FOLDER)];
    let used =
        places.into_iter().find(|place| fs::read_dir(place).is_ok_and(|mut entries| entries.next().is_some()))?;
    Some(used.display().to_string())
}

async fn open_files(folder: &Path, now: Timestamp) -> Result<Opened, StoreError> {
    check_control_file(folder)?;
    let file = folder.join(CONTROL_FILE);
    keep_private(&file)?;
    let control = Database::open_sqlite(&file, true, CONTROL_READERS_MAX, Scope::Control).await?;
    check_control(&control, folder).await?;
    let place = file.display().to_string();
    migrate::migrate(&control, &place, migrate::CONTROL.sqlite, now).await?;
    walls::must_stand(walls::check_file(&control, &place, migrate::CONTROL.sqlite).await?)?;
    let tenants = TenantPlaces::in_folder(folder.join(TENANTS_FOLDER), control.clone());
    Ok(Opened { ledger: control.clone(), control, tenants, server: None })
}

async fn open_postgres(urls: &DatabaseUrls, now: Timestamp) -> Result<Opened, StoreError> {
    let server = Server::connect(urls).await?;
    let hold = server.hold().await?;
    migrate::migrate_schema(&server, CONTROL_SCHEMA, migrate::CONTROL.postgres, now).await?;
    migrate::migrate_schema(&server, TENANTS_SCHEMA, migrate::TENANT.postgres, now).await?;
    let control = server.schema(CONTROL_SCHEMA, Scope::Control);
    let tenants = server.schema(TENANTS_SCHEMA, Scope::Control);
    let mut findings = walls::check_schema(&control, CONTROL_SCHEMA, migrate::CONTROL.postgres).await?;
    findings.extend(walls::check_schema(&tenants, TENANTS_SCHEMA, migrate::TENANT.postgres).await?);
    walls::must_stand(findings)?;
    // The ledger's writer waits for no reader.
    let ledger = server.schema_apart(CONTROL_SCHEMA, Scope::Control);
    let tenants = TenantPlaces::on_server(server.clone(), control.clone());
    Ok(Opened { control, ledger, tenants, server: Some(ServerSide { server, hold, moving: Mutex::default() }) })
}

/// Takes the folder's lock and writes our process id into it, so that whoever comes second can say who was first.
fn lock_folder(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join(LOCK_FILE);
    let failed = |error| StoreError::io(format!("lock {}", path.display()), error);
    let mut file = private_files::open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let pid = file.read_to_string(&mut holder).ok().and_then(|_| holder.trim().parse().ok());
            return Err(StoreError::FolderLocked { folder: folder.to_owned(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    file.set_len(0).map_err(failed)?;
    file.rewind().map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}

/// Reads the pepper, or makes it for a new folder. A folder with a database and no pepper is refused: a new one would
/// silently make every key worthless.
fn read_or_make_pepper(path: &Path, is_new: bool) -> Result<Pepper, StoreError> {
    let failed = |error| StoreError::io(format!("read or write {}", path.display()), error);
    match fs::read(path) {
        Ok(bytes) => {
            let bytes =
                bytes.try_into().map_err(|_| StoreError::corrupt(format!("{} has not 32 bytes", path.display())))?;
            Ok(Pepper::new(bytes))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && is_new => {
            let bytes: [u8; 32] = random_bytes()?;
            private_files::replace(path, &[&bytes]).map_err(failed)?;
            Ok(Pepper::new(bytes))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(StoreError::corrupt(format!("{} is missing: without it no key can be checked", path.display())))
        }
        Err(error) => Err(failed(error)),
    }
}
