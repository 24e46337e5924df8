//! The store itself: the folder, its lock and its secrets, and the databases that are open.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use atelier_access::{Caller, Pepper};
use atelier_domain::limits::{CONTROL_READERS_MAX, DATABASE_READERS_MAX, TENANT_DATABASES_OPEN_MAX};
use atelier_domain::{Clock, RequestId, TenantId, Timestamp};
use tokio::sync::{Mutex, Notify};

use crate::blobs::Blobs;
use crate::error::StoreError;
use crate::keys::KeyCache;
use crate::ledger::Ledger;
use crate::migrate;
use crate::sql::{Database, values};

const CONTROL_FILE: &str = "control.db";
const LOCK_FILE: &str = "lock";
const PEPPER_FILE: &str = "pepper";
const TENANTS_FOLDER: &str = "tenants";
const BLOBS_FOLDER: &str = "blobs";
/// Only the server's own user may look into the data folder.
const FOLDER_MODE: u32 = 0o700;
/// Secrets are for the server's own user alone.
const SECRET_FILE_MODE: u32 = 0o600;

/// What a store is opened with.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// The data folder; made when it is not there.
    pub folder: PathBuf,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
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
    pub(crate) tenants: TenantDatabases,
    pub(crate) blobs: Blobs,
    pub(crate) pepper: Pepper,
    pub(crate) keys: KeyCache,
    pub(crate) ledger: Ledger,
    pub(crate) job_signal: Notify,
    /// Held as long as the store lives: the lock goes with the file handle.
    lock: File,
}

impl Store {
    /// Opens the data folder: locks it, brings the schemas up to date, settles what a killed server left open, and makes
    /// its jobs claimable again. Must be called inside a tokio runtime, on which the ledger's writer then lives.
    ///
    /// # Errors
    /// [`StoreError::FolderLocked`], [`StoreError::NewerSchema`], [`StoreError::DiskFull`] and what the system refuses.
    pub async fn open(options: OpenOptions) -> Result<Self, StoreError> {
        let OpenOptions { folder, clock } = options;
        for part in [folder.clone(), folder.join(TENANTS_FOLDER), folder.join(BLOBS_FOLDER)] {
            DirBuilder::new()
                .recursive(true)
                .mode(FOLDER_MODE)
                .create(&part)
                .map_err(|error| StoreError::io(format!("create the folder {}", part.display()), error))?;
        }
        let lock = lock_folder(&folder)?;
        let control_file = folder.join(CONTROL_FILE);
        let pepper = read_or_make_pepper(&folder.join(PEPPER_FILE), !control_file.exists())?;
        let control = Database::open_sqlite(&control_file, true, CONTROL_READERS_MAX).await?;
        migrate::migrate(&control, &control_file, migrate::CONTROL, clock.now()).await?;
        let ledger = Ledger::start(control.clone(), Arc::clone(&clock)).await?;
        let store = Self {
            inner: Arc::new(Inner {
                tenants: TenantDatabases::new(folder.join(TENANTS_FOLDER)),
                blobs: Blobs::open(&folder.join(BLOBS_FOLDER))?,
                keys: KeyCache::default(),
                job_signal: Notify::new(),
                clock,
                control,
                pepper,
                ledger,
                lock,
            }),
        };
        store.finish_deletions().await?;
        store.recover_jobs().await?;
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

    /// Whether the database answers: for readiness.
    ///
    /// # Errors
    /// What the database says.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.inner.control.fetch_optional("SELECT 1 AS one", values![]).await.map(|_| ())
    }

    /// Commits what the ledger still holds and closes every file. Calls after this fail with
    /// [`StoreError::ShuttingDown`].
    pub async fn close(&self) {
        self.inner.ledger.close().await;
        self.inner.tenants.close_all().await;
        self.inner.control.close().await;
        // Another server may have the folder from here on; a lock that cannot be given back ends with the process.
        let _ = self.inner.lock.unlock();
    }

    pub(crate) fn control(&self) -> &Database {
        &self.inner.control
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

/// Takes the folder's lock and writes our process id into it, so that whoever comes second can say who was first.
fn lock_folder(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join(LOCK_FILE);
    let failed = |error| StoreError::io(format!("lock {}", path.display()), error);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(SECRET_FILE_MODE)
        .open(&path)
        .map_err(failed)?;
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
            let draft = path.with_extension("new");
            let _ = fs::remove_file(&draft);
            let mut file =
                File::options().write(true).create_new(true).mode(SECRET_FILE_MODE).open(&draft).map_err(failed)?;
            file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)?;
            fs::rename(&draft, path).map_err(failed)?;
            sync_folder_of(path).map_err(failed)?;
            Ok(Pepper::new(bytes))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(StoreError::corrupt(format!("{} is missing: without it no key can be checked", path.display())))
        }
        Err(error) => Err(failed(error)),
    }
}

fn sync_folder_of(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// The tenants' databases that are open, the least recently used closed when there are too many.
#[derive(Debug)]
pub(crate) struct TenantDatabases {
    folder: PathBuf,
    open: Mutex<OpenDatabases>,
}

#[derive(Debug, Default)]
struct OpenDatabases {
    uses: u64,
    by_tenant: HashMap<TenantId, OpenDatabase>,
}

#[derive(Debug)]
struct OpenDatabase {
    database: Arc<Database>,
    last_use: u64,
}

impl TenantDatabases {
    fn new(folder: PathBuf) -> Self {
        Self { folder, open: Mutex::default() }
    }

    fn file(&self, tenant: TenantId) -> PathBuf {
        self.folder.join(format!("{}.db", tenant.hex()))
    }

    /// Makes the file of a new tenant, schema and all, and leaves it closed.
    pub(crate) async fn create(&self, tenant: TenantId, now: Timestamp) -> Result<(), StoreError> {
        let file = self.file(tenant);
        let database = Database::open_sqlite(&file, true, DATABASE_READERS_MAX).await?;
        let migrated = migrate::migrate(&database, &file, migrate::TENANT, now).await;
        database.close().await;
        migrated?;
        sync_folder_of(&file).map_err(|error| StoreError::io("make a tenant's file durable", error))
    }

    async fn get(&self, tenant: TenantId, now: Timestamp) -> Result<Arc<Database>, StoreError> {
        let mut open = self.open.lock().await;
        open.uses += 1;
        let last_use = open.uses;
        if let Some(entry) = open.by_tenant.get_mut(&tenant) {
            entry.last_use = last_use;
            return Ok(Arc::clone(&entry.database));
        }
        let file = self.file(tenant);
        let database = Database::open_sqlite(&file, false, DATABASE_READERS_MAX).await?;
        migrate::migrate(&database, &file, migrate::TENANT, now).await?;
        let database = Arc::new(database);
        open.by_tenant.insert(tenant, OpenDatabase { database: Arc::clone(&database), last_use });
        open.close_least_recently_used().await;
        Ok(database)
    }

    /// Closes a tenant's database and removes its file.
    pub(crate) async fn remove(&self, tenant: TenantId) -> Result<(), StoreError> {
        let mut open = self.open.lock().await;
        if let Some(entry) = open.by_tenant.remove(&tenant) {
            entry.database.close().await;
        }
        let file = self.file(tenant);
        for suffix in ["", "-wal", "-shm"] {
            let mut path = file.clone().into_os_string();
            path.push(suffix);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(StoreError::io("remove a tenant's file", error));
                }
                _ => {}
            }
        }
        sync_folder_of(&file).map_err(|error| StoreError::io("make a removal durable", error))
    }

    async fn close_all(&self) {
        for (_, entry) in self.open.lock().await.by_tenant.drain() {
            entry.database.close().await;
        }
    }
}

impl OpenDatabases {
    /// One that somebody works with is never closed, so there may be more open than the limit for a while.
    async fn close_least_recently_used(&mut self) {
        while self.by_tenant.len() > TENANT_DATABASES_OPEN_MAX {
            let idle = self.by_tenant.iter().filter(|(_, entry)| Arc::strong_count(&entry.database) == 1);
            let Some(tenant) = idle.min_by_key(|(_, entry)| entry.last_use).map(|(tenant, _)| *tenant) else { return };
            if let Some(entry) = self.by_tenant.remove(&tenant) {
                entry.database.close().await;
            }
        }
    }
}
