//! What every test begins with: an open store, a clock that stands still, and callers who showed real keys.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use atelier_access::right::{
    CreateTenant, LoadAdapter, ManageKeys, ReadRuns, ReadVersions, RunJob, StartRun, WorkJobs, WriteSources,
};
use atelier_access::{ApiKey, Caller, Granted, Right};
use atelier_domain::{Digest, ManualClock, Plan, Role, Scopes, Separation, Suffix, TenantId, Timestamp};
use atelier_store::{
    AdapterBlob, BlobOptions, ClaimedJob, CreatedKey, DatabaseOptions, DatabaseUrls, NewKey, NewRun, NewSource,
    NewVersion, OpenOptions, RootKeyOptions, RunRecord, S3Options, SourceOrigin, SourceRecord, Store, StoreError,
    TenantRecord, VersionRecord,
};
use bytes::Bytes;
use serde_json::json;
use tempfile::TempDir;

use crate::postgres::TestDatabase;
use crate::s3_server::{ACCESS_KEY, ENDPOINT_FILE, S3Server, SECRET_KEY, SHARED_BUCKET};

/// Where a world keeps what its S3 server holds, beside its data folder.
pub const S3_FOLDER: &str = "s3";
/// Where in the shared bucket its blobs are. Short, because the server writes a blob's name into the name of a file.
pub const SHARED_PREFIX: &str = "i/1";

/// The databases that the store knows.
#[derive(Debug, Clone)]
pub enum Backend {
    Sqlite,
    Postgres(Arc<TestDatabase>),
    /// Each tenant has a schema of its own.
    PostgresSchema(Arc<TestDatabase>),
    /// Each tenant has a database of its own.
    PostgresDatabase(Arc<TestDatabase>),
    /// The owner of the tables is not known.
    PostgresWithoutOwner(Arc<TestDatabase>),
}

impl Backend {
    pub fn postgres() -> Self {
        Self::Postgres(Arc::new(TestDatabase::create()))
    }

    /// With a role for the application that no other test has.
    pub fn postgres_with_own_role() -> Self {
        let mut database = TestDatabase::create();
        database.application_role = format!("app_{}", database.name);
        database.sql(&format!("CREATE ROLE {} LOGIN", database.application_role));
        Self::Postgres(Arc::new(database))
    }

    /// How its tenants are kept apart.
    fn separation(&self) -> Separation {
        match self {
            Self::Sqlite => Separation::File,
            Self::Postgres(_) | Self::PostgresWithoutOwner(_) => Separation::Pooled,
            Self::PostgresSchema(_) => Separation::Schema,
            Self::PostgresDatabase(_) => Separation::Database,
        }
    }

    /// The database beneath, for tests of what only PostgreSQL has.
    pub fn test_database(&self) -> &TestDatabase {
        match self {
            Self::Postgres(database)
            | Self::PostgresSchema(database)
            | Self::PostgresDatabase(database)
            | Self::PostgresWithoutOwner(database) => database,
            Self::Sqlite => panic!("a test of PostgreSQL's"),
        }
    }
}

/// Makes one test per database of each test function, which takes a fresh [`World`].
macro_rules! on_each_database {
    ($($(#[$attribute:meta])* async fn $name:ident($world:ident: World) $body:block)*) => {
        $($(#[$attribute])* pub async fn $name($world: World) $body)*

        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(crate::world::World::open(crate::world::Backend::Sqlite).await).await;
                }
            )*
        }

        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(crate::world::World::open(crate::world::Backend::postgres()).await).await;
                }
            )*
        }

        mod postgres_schema {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let database = std::sync::Arc::new(crate::postgres::TestDatabase::create());
                    let backend = crate::world::Backend::PostgresSchema(database);
                    super::$name(crate::world::World::open(backend).await).await;
                }
            )*
        }

        mod postgres_database {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let database = std::sync::Arc::new(crate::postgres::TestDatabase::create());
                    let backend = crate::world::Backend::PostgresDatabase(database);
                    super::$name(crate::world::World::open(backend).await).await;
                }
            )*
        }
    };
}
pub(crate) use on_each_database;

/// Runs test functions of [`on_each_database`] once more with blobs in a bucket.
macro_rules! with_blobs_on_s3 {
    ($($module:ident::$name:ident,)*) => {
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let world = crate::world::World::open_on_s3(crate::world::Backend::Sqlite).await;
                    crate::$module::$name(world).await;
                }
            )*
        }

        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let world = crate::world::World::open_on_s3(crate::world::Backend::postgres()).await;
                    crate::$module::$name(world).await;
                }
            )*
        }
    };
}
pub(crate) use with_blobs_on_s3;

pub struct World {
    pub store: Store,
    pub clock: Arc<ManualClock>,
    pub operator: Caller,
    pub operator_key: String,
    pub folder: TempDir,
    pub backend: Backend,
}

pub const START: Timestamp = Timestamp::from_seconds(1_800_000_000);

impl World {
    pub async fn open(backend: Backend) -> Self {
        Self::open_in(backend, tempfile::tempdir().unwrap()).await
    }

    /// With blobs in a bucket, on a server that goes with the test's process. The folder says so: whoever opens it again
    /// finds the same bucket.
    pub async fn open_on_s3(backend: Backend) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Box::leak(Box::new(S3Server::start(&folder.path().join(S3_FOLDER))));
        Self::open_in(backend, folder).await
    }

    async fn open_in(backend: Backend, folder: TempDir) -> Self {
        let clock = Arc::new(ManualClock::at(START));
        let store = open_store(&backend, &folder, &clock).await.unwrap();
        let operator_key = store.bootstrap_operator_key().await.unwrap().unwrap().reveal();
        let operator = store.authenticate(&operator_key).await.unwrap();
        Self { store, clock, operator, operator_key, folder, backend }
    }

    /// As after a kill: nothing is closed in good order, then the folder is opened again.
    pub async fn reopen(self) -> Self {
        let Self { store, clock, operator, operator_key, folder, backend } = self;
        drop(store);
        let store = open_store(&backend, &folder, &clock).await.unwrap();
        Self { store, clock, operator, operator_key, folder, backend }
    }

    /// A second server on the same database, with a data folder of its own that goes with what is given.
    pub async fn another_process(&self) -> (Store, TempDir) {
        let folder = self.another_folder();
        (open_store(&self.backend, &folder, &self.clock).await.unwrap(), folder)
    }

    /// A second data folder with the secrets of the first, as somebody makes it who runs two servers on one database.
    pub fn another_folder(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        for name in ["pepper", "root-key"] {
            fs::copy(self.folder.path().join("data").join(name), folder.path().join("data").join(name)).unwrap();
        }
        folder
    }

    pub fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    pub async fn tenant(&self, name: &str, plan: Plan) -> Tenant {
        let grant = self.operator.grant(CreateTenant).unwrap();
        let (name, separation) = (name.parse().unwrap(), self.backend.separation());
        let (record, key) = self.store.create_tenant_apart(&grant, name, plan, separation).await.unwrap();
        Tenant { admin: self.store.authenticate(&key.key.reveal()).await.unwrap(), key: key.key, record }
    }

    pub async fn key(&self, tenant: &Tenant, role: Role) -> CreatedKey {
        let grant = tenant.may(ManageKeys { tenant: tenant.id() });
        self.store.create_key(&grant, new_key(&grant, role)).await.unwrap()
    }

    pub async fn member(&self, tenant: &Tenant) -> Caller {
        let made = self.key(tenant, Role::Member).await;
        self.store.authenticate(&made.key.reveal()).await.unwrap()
    }

    pub async fn source(&self, tenant: &Tenant) -> SourceRecord {
        let archive = Bytes::from(format!("archive of {}", tenant.record.name));
        let source = NewSource { name: "code".to_owned(), origin: SourceOrigin::Upload, archive };
        self.store.create_source(&tenant.may(WriteSources { tenant: tenant.id() }), source).await.unwrap()
    }

    pub async fn start_run(&self, tenant: &Tenant) -> RunRecord {
        let source = self.source(tenant).await.id;
        self.store.create_run(&tenant.may(StartRun { tenant: tenant.id() }), new_run(source)).await.unwrap()
    }

    pub async fn run(&self, tenant: &Tenant, run: &RunRecord) -> RunRecord {
        self.store.run(&tenant.may(ReadRuns { tenant: tenant.id() }), run.id).await.unwrap()
    }

    pub async fn claim(&self) -> Option<ClaimedJob> {
        self.store.claim_job(&worker()).await.unwrap()
    }

    /// Stores an adapter and publishes it, as a worker does at the end of its job.
    pub async fn publish(&self, job: &ClaimedJob, content: u8) -> Result<VersionRecord, StoreError> {
        let files = adapter_files(content);
        let digest = Digest([content; 32]);
        self.store.put_adapter(&job.grant, &job.lease, digest, &files).await?;
        self.store.publish_version(&job.grant, &job.lease, new_version(content)).await
    }

    /// A whole run of the tenant, up to its version.
    pub async fn learn(&self, tenant: &Tenant, content: u8) -> VersionRecord {
        self.start_run(tenant).await;
        let job = self.claim().await.expect("the run's job is due");
        self.publish(&job, content).await.unwrap()
    }

    pub async fn versions(&self, tenant: &Tenant) -> Vec<VersionRecord> {
        self.store.versions(&tenant.may(ReadVersions { tenant: tenant.id() })).await.unwrap()
    }
}

pub struct Tenant {
    pub record: TenantRecord,
    pub key: ApiKey,
    pub admin: Caller,
}

impl Tenant {
    pub fn id(&self) -> TenantId {
        self.record.id
    }

    pub fn may<R: Right>(&self, right: R) -> Granted<R> {
        self.admin.grant(right).unwrap()
    }
}

pub async fn open_store(backend: &Backend, folder: &TempDir, clock: &Arc<ManualClock>) -> Result<Store, StoreError> {
    let database = database_options(backend);
    Store::open(open_options(database, folder.path().join("data"), clock)).await
}

/// With the root key in the folder.
pub fn open_options(database: DatabaseOptions, folder: std::path::PathBuf, clock: &Arc<ManualClock>) -> OpenOptions {
    OpenOptions {
        database,
        blobs: blob_options(folder.parent().unwrap()),
        folder,
        root_key: RootKeyOptions::InFolder,
        erasure_log: None,
        clock: Arc::clone(clock) as _,
    }
}

/// Where blobs are of a world in this folder.
pub fn blob_options(world: &std::path::Path) -> BlobOptions {
    match std::fs::read_to_string(world.join(S3_FOLDER).join(ENDPOINT_FILE)) {
        Ok(endpoint) => BlobOptions::S3(s3_options(&endpoint)),
        Err(_) => BlobOptions::Folder,
    }
}

/// The shared bucket of a test's server, with the right credentials.
pub fn s3_options(endpoint: &str) -> S3Options {
    let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    S3Options {
        address: format!("s3://{SHARED_BUCKET}/{SHARED_PREFIX}").parse().unwrap(),
        endpoint: Some(endpoint.to_owned()),
        region: None,
        path_style: true,
        allow_http: true,
        settings: vec![setting("AWS_ACCESS_KEY_ID", ACCESS_KEY), setting("AWS_SECRET_ACCESS_KEY", SECRET_KEY)],
    }
}

/// The folder in which files are that hold the blobs of tenants without a bucket of their own, a folder for each.
pub fn blob_folder(folder: &TempDir) -> std::path::PathBuf {
    let on_s3 = folder.path().join(S3_FOLDER);
    if on_s3.exists() { on_s3.join(SHARED_BUCKET).join(SHARED_PREFIX) } else { folder.path().join("data/blobs") }
}

pub fn database_options(backend: &Backend) -> DatabaseOptions {
    match backend {
        Backend::Sqlite => DatabaseOptions::Files,
        backend => {
            let database = backend.test_database();
            let owner = (!matches!(backend, Backend::PostgresWithoutOwner(_))).then(|| database.owner_url());
            DatabaseOptions::Postgres(DatabaseUrls { application: database.application_url(), owner })
        }
    }
}

pub fn new_key(grant: &Granted<ManageKeys>, role: Role) -> NewKey {
    let rights = grant.hand_out(role, Scopes::ALL).unwrap();
    NewKey { name: None, rights, project: None, owner: None, expires_at: None }
}

/// Waits until another process no longer believes a caller whose key was just made worthless.
pub async fn assert_forgotten_within_a_second(other: &Store, caller: &Caller) {
    let begin = std::time::Instant::now();
    while other.renew(caller).await.is_ok() {
        assert!(begin.elapsed() < Duration::from_secs(1), "the other process still believes the key");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn worker() -> Granted<WorkJobs> {
    Caller::system("worker").grant(WorkJobs).unwrap()
}

pub fn job_right(tenant: TenantId) -> Granted<RunJob> {
    Caller::system("worker").grant(RunJob { tenant }).unwrap()
}

pub fn load_right(tenant: TenantId) -> Granted<LoadAdapter> {
    Caller::system("engine").grant(LoadAdapter { tenant }).unwrap()
}

pub fn new_run(source: atelier_domain::SourceId) -> NewRun {
    NewRun { source, suffix: Suffix::default(), options: json!({"epochs": 3}), idempotency_key: None }
}

pub fn adapter_files(content: u8) -> AdapterBlob {
    AdapterBlob { config: Bytes::from_static(b"{}"), weights: vec![content; 100].into() }
}

pub fn new_version(content: u8) -> NewVersion {
    NewVersion {
        digest: Digest([content; 32]),
        base_digest: Digest([0xba; 32]),
        parent: None,
        manifest: json!({"files": 3}),
        eval: json!({"items": 10}),
        result: json!({"seconds": 1}),
    }
}

/// Fails the test unless the result is this error.
macro_rules! assert_error {
    ($result:expr, $pattern:pat) => {
        match $result {
            Err($pattern) => {}
            other => panic!("expected {}, got {:?}", stringify!($pattern), other.map(|_| "success")),
        }
    };
}
pub(crate) use assert_error;
