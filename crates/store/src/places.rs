//! Where tenants' rows are: which place is whose, making and removing them, and those that are open.
//!
//! On SQLite a place is a file. On PostgreSQL it is the schema that tenants share, a schema or a database, as the
//! tenant's row in the control database says. Whose a place is stands inside it, so one that was put where another
//! belongs is not opened.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use atelier_domain::limits::{DATABASE_READERS_MAX, TENANT_DATABASES_OPEN_MAX, TENANT_PLACES_MAX};
use atelier_domain::{Separation, TenantId, Timestamp};
use tokio::sync::Mutex;

use crate::audit::Unrecorded;
use crate::error::StoreError;
use crate::migrate;
use crate::private_files::sync_folder_of;
use crate::sql::{DATABASE, Database, Scope, Server, Transaction, keep_private, values};
use crate::walls::{self, WallFinding};

/// The schema of the control tables.
pub(crate) const CONTROL_SCHEMA: &str = "atelier";
/// The schema of the tables that tenants share, and of the tables in a tenant's own database.
pub(crate) const TENANTS_SCHEMA: &str = "atelier_tenants";

/// The tenants' places, those that are open, the least recently used closed when there are too many.
#[derive(Debug)]
pub(crate) struct TenantPlaces {
    home: Home,
    open: Mutex<OpenPlaces>,
}

/// Where places are.
#[derive(Debug)]
enum Home {
    Folder { folder: PathBuf, control: Database },
    Server { server: Server, control: Database },
}

#[derive(Debug, Default)]
struct OpenPlaces {
    uses: u64,
    by_tenant: HashMap<TenantId, OpenPlace>,
}

#[derive(Debug)]
struct OpenPlace {
    database: Arc<Database>,
    /// Whether it has connections of its own, which few can have.
    is_heavy: bool,
    last_use: u64,
}

impl TenantPlaces {
    /// Files in this folder.
    pub(crate) fn in_folder(folder: PathBuf, control: Database) -> Self {
        Self { home: Home::Folder { folder, control }, open: Mutex::default() }
    }

    /// Schemas and databases of this server.
    pub(crate) fn on_server(server: Server, control: Database) -> Self {
        Self { home: Home::Server { server, control }, open: Mutex::default() }
    }

    /// How tenants are kept apart unless told otherwise.
    pub(crate) fn separation_default(&self) -> Separation {
        match self.home {
            Home::Folder { .. } => Separation::File,
            Home::Server { .. } => Separation::Pooled,
        }
    }

    /// Makes the place of a new tenant, schema and all; what could not be made whole is removed again.
    pub(crate) async fn create(
        &self,
        tenant: TenantId,
        separation: Separation,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        match (&self.home, separation) {
            (Home::Folder { folder, .. }, Separation::File) => {
                let made = create_file(folder, tenant, now).await;
                made.inspect_err(|_| left_over(tenant, remove_file(folder, tenant)))
            }
            (Home::Server { server, .. }, Separation::Pooled | Separation::Schema | Separation::Database) => {
                let made = create_on_server(server, tenant, separation, now).await;
                if made.is_err() && separation != Separation::Pooled {
                    left_over(tenant, remove_on_server(server, tenant, separation).await);
                }
                made
            }
            _ => Err(StoreError::UnsupportedSeparation { separation }),
        }
    }

    /// The open place of a tenant; not found once the tenant is deleted.
    pub(crate) async fn get(&self, tenant: TenantId, now: Timestamp) -> Result<Arc<Database>, StoreError> {
        let mut open = self.open.lock().await;
        open.uses += 1;
        let last_use = open.uses;
        if let Some(entry) = open.by_tenant.get_mut(&tenant) {
            entry.last_use = last_use;
            return Ok(Arc::clone(&entry.database));
        }
        let (database, is_heavy) = match &self.home {
            Home::Folder { folder, control } => (open_file(folder, control, tenant, now).await?, true),
            Home::Server { server, control } => {
                let separation = separation_of_living(control, tenant).await?;
                let database = open_on_server(server, tenant, separation, now).await?;
                (database, separation == Separation::Database)
            }
        };
        let database = Arc::new(database);
        open.by_tenant.insert(tenant, OpenPlace { database: Arc::clone(&database), is_heavy, last_use });
        open.close_least_recently_used().await;
        Ok(database)
    }

    /// Closes the place of a deleted tenant and removes it with all that is in it.
    pub(crate) async fn remove(&self, tenant: TenantId) -> Result<(), StoreError> {
        const SQL: &str = "SELECT separation, leftover FROM tenants WHERE id = $1";
        let mut open = self.open.lock().await;
        if let Some(entry) = open.by_tenant.remove(&tenant) {
            entry.database.close().await;
        }
        match &self.home {
            Home::Folder { folder, .. } => remove_file(folder, tenant),
            Home::Server { server, control } => {
                let row = control.in_scope(Scope::Tenant(tenant)).fetch_optional(SQL, values![tenant]).await?;
                let row = row.ok_or(StoreError::NotFound { what: "tenant" })?;
                remove_on_server(server, tenant, row.parsed("separation")?).await?;
                match row.optional_parsed("leftover")? {
                    Some(leftover) => remove_on_server(server, tenant, leftover).await,
                    None => Ok(()),
                }
            }
        }
    }

    /// The place of a tenant that is no more and may still have one, to look at; none where it has none.
    pub(crate) async fn of_erased(&self, tenant: TenantId) -> Result<Option<Database>, StoreError> {
        const SQL: &str = "SELECT separation FROM tenants WHERE id = $1";
        match &self.home {
            Home::Folder { folder, .. } => {
                let file = file_of(folder, tenant);
                if !file.exists() {
                    return Ok(None);
                }
                Database::open_sqlite(&file, false, 1, Scope::Tenant(tenant)).await.map(Some)
            }
            Home::Server { server, control } => {
                let row = control.in_scope(Scope::Tenant(tenant)).fetch_optional(SQL, values![tenant]).await?;
                let Some(row) = row else { return Ok(None) };
                Ok(Some(place_on_server(server, tenant, row.parsed("separation")?)))
            }
        }
    }

    /// Removes files of a tenant whose rows are gone.
    pub(crate) fn remove_litter(&self, tenant: TenantId) -> Result<(), StoreError> {
        match &self.home {
            Home::Folder { folder, .. } => remove_file(folder, tenant),
            Home::Server { .. } => Ok(()),
        }
    }

    /// Removes a place whose tenant was never made.
    pub(crate) async fn discard(&self, tenant: TenantId, separation: Separation) -> Result<(), StoreError> {
        match &self.home {
            Home::Folder { folder, .. } => remove_file(folder, tenant),
            Home::Server { server, .. } => remove_on_server(server, tenant, separation).await,
        }
    }

    /// Looks a tenant's place up anew when it is next asked for. Handles that are in use stay what they are.
    pub(crate) async fn forget(&self, tenant: TenantId) {
        self.open.lock().await.by_tenant.remove(&tenant);
    }

    pub(crate) async fn close_all(&self) {
        for (_, entry) in self.open.lock().await.by_tenant.drain() {
            entry.database.close().await;
        }
    }
}

impl OpenPlaces {
    /// One that somebody works with is never closed, so there may be more open than the limit for a while.
    async fn close_least_recently_used(&mut self) {
        for (is_heavy, limit) in [(true, TENANT_DATABASES_OPEN_MAX), (false, TENANT_PLACES_MAX)] {
            while self.by_tenant.values().filter(|entry| entry.is_heavy == is_heavy).count() > limit {
                let idle = self
                    .by_tenant
                    .iter()
                    .filter(|(_, entry)| entry.is_heavy == is_heavy && Arc::strong_count(&entry.database) == 1);
                let Some(tenant) = idle.min_by_key(|(_, entry)| entry.last_use).map(|(tenant, _)| *tenant) else {
                    break;
                };
                if let Some(entry) = self.by_tenant.remove(&tenant) {
                    entry.database.close().await;
                }
            }
        }
    }
}

/// What the damaged data of one tenant is to the others: nothing. It is named in the log and left as it is.
pub(crate) fn unless_damaged<T>(tenant: TenantId, result: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match result {
        Err(error @ StoreError::Damaged { .. }) => {
            tracing::error!(%tenant, error = &error as &dyn std::error::Error, "a tenant is not served");
            Ok(None)
        }
        result => result.map(Some),
    }
}

/// What a tenant's bucket that does not answer is to the others: nothing. It is named in the log, and what was to be done
/// there is done by the next start.
pub(crate) fn unless_away<T>(tenant: TenantId, result: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match result {
        Err(error @ StoreError::BlobsUnreachable { .. }) => {
            tracing::error!(%tenant, error = &error as &dyn std::error::Error, "a tenant's blobs are put off");
            Ok(None)
        }
        result => result.map(Some),
    }
}

/// What could not be made was not removed either: nobody's, and in nobody's way.
fn left_over(tenant: TenantId, removed: Result<(), StoreError>) {
    if let Err(error) = removed {
        tracing::warn!(%tenant, error = &error as &dyn std::error::Error, "a place that was not made whole is left over");
    }
}

fn file_of(folder: &Path, tenant: TenantId) -> PathBuf {
    folder.join(format!("{}.db", tenant.hex()))
}

async fn create_file(folder: &Path, tenant: TenantId, now: Timestamp) -> Result<(), StoreError> {
    let file = file_of(folder, tenant);
    let database = Database::open_sqlite(&file, true, DATABASE_READERS_MAX, Scope::Tenant(tenant)).await?;
    let made = prepare_file(&database, &file, tenant, now).await;
    database.close().await;
    made?;
    keep_private(&file)?;
    sync_folder_of(&file).map_err(|error| StoreError::io("make a tenant's file durable", error))
}

async fn open_file(
    folder: &Path,
    control: &Database,
    tenant: TenantId,
    now: Timestamp,
) -> Result<Database, StoreError> {
    let file = file_of(folder, tenant);
    if !file.exists() {
        // Not there for those who are no more; for the living it should be.
        separation_of_living(control, tenant).await?;
        return Err(missing(&file));
    }
    keep_private(&file)?;
    let database = Database::open_sqlite(&file, false, DATABASE_READERS_MAX, Scope::Tenant(tenant)).await?;
    let prepared = async {
        // One without a schema was not made by us: filling it would hide that the tenant's rows are gone.
        if !migrate::has_history(&database).await? {
            return Err(emptied(file.display()));
        }
        prepare_file(&database, &file, tenant, now).await
    };
    match prepared.await {
        Ok(()) => Ok(database),
        Err(error) => {
            database.close().await;
            Err(error)
        }
    }
}

fn missing(file: &Path) -> StoreError {
    StoreError::damaged(file.display(), "is missing")
}

fn emptied(place: impl fmt::Display) -> StoreError {
    StoreError::damaged(place, "is empty or missing")
}

/// Brings a file up to date and sees that it is this tenant's. A file from before files said so becomes the tenant's
/// whose rows are in it; one that said so once and does not any more is nobody's.
async fn prepare_file(database: &Database, file: &Path, tenant: TenantId, now: Timestamp) -> Result<(), StoreError> {
    const STRANGERS: &str = "SELECT tenant_id FROM audit WHERE tenant_id <> $1
        UNION ALL SELECT tenant_id FROM sources WHERE tenant_id <> $1
        UNION ALL SELECT tenant_id FROM runs WHERE tenant_id <> $1 LIMIT 1";
    let could_say = migrate::names_its_tenant(database).await?;
    migrate::migrate(database, &file.display().to_string(), migrate::TENANT.sqlite, now).await?;
    if !could_say
        && database.fetch_optional("SELECT tenant_id FROM tenant_identity", values![]).await?.is_none()
        && database.fetch_optional(STRANGERS, values![tenant]).await?.is_none()
    {
        let mut transaction = database.begin().await?;
        identify(&mut transaction, tenant, now).await?;
        transaction.commit(Unrecorded::Place.permit()).await?;
    }
    check_identity(database, tenant).await?;
    walls::must_stand(walls::check_file(database, &file.display().to_string(), migrate::TENANT.sqlite).await?)
}

/// Looks at a tenant's file without changing it.
pub(crate) async fn inspect_file(folder: &Path, tenant: TenantId) -> Result<Vec<WallFinding>, StoreError> {
    let (file, scope) = (file_of(folder, tenant), Scope::Tenant(tenant));
    if !file.exists() {
        return damage_found(missing(&file));
    }
    let database = match Database::open_sqlite(&file, false, 1, scope).await {
        Ok(database) => database,
        Err(error) => return damage_found(error),
    };
    let findings = inspect_place(&database, &file.display().to_string(), tenant, Separation::File).await;
    database.close().await;
    findings.or_else(damage_found)
}

/// Damage is a finding like another: the rest is looked at all the same.
fn damage_found(error: StoreError) -> Result<Vec<WallFinding>, StoreError> {
    match error {
        StoreError::Damaged { place, what } => {
            Ok(vec![WallFinding { place, what: what + ". Put it back from a backup" }])
        }
        error => Err(error),
    }
}

/// Looks at a tenant's place on a server without changing it.
pub(crate) async fn inspect_on_server(
    server: &Server,
    tenant: TenantId,
    separation: Separation,
) -> Result<Vec<WallFinding>, StoreError> {
    let database = place_on_server(server, tenant, separation);
    let findings = inspect_place(&database, &called(tenant, separation), tenant, separation).await;
    database.close().await;
    findings.map_err(|error| damaged_if_missing(error, tenant, separation)).or_else(damage_found)
}

fn damaged_if_missing(error: StoreError, tenant: TenantId, separation: Separation) -> StoreError {
    match error {
        StoreError::NotFound { what: DATABASE } => emptied(called(tenant, separation)),
        error => error,
    }
}

async fn inspect_place(
    database: &Database,
    place: &str,
    tenant: TenantId,
    separation: Separation,
) -> Result<Vec<WallFinding>, StoreError> {
    let mut findings = match separation {
        Separation::File => walls::check_file(database, place, migrate::TENANT.sqlite).await?,
        // The tables that tenants share are looked at once.
        Separation::Pooled => Vec::new(),
        Separation::Schema | Separation::Database => {
            walls::check_schema(database, place, migrate::TENANT.postgres).await?
        }
    };
    if let Err(StoreError::WrongPlace { .. }) = check_identity(database, tenant).await {
        let what = format!("is not the place of {tenant}, which it is in");
        findings.push(WallFinding { place: place.to_owned(), what });
    }
    Ok(findings)
}

/// What people call a tenant's place on a server.
fn called(tenant: TenantId, separation: Separation) -> String {
    match separation {
        Separation::Schema => format!("schema {}", own_schema(tenant)),
        Separation::Database => format!("database {}", own_database(tenant)),
        Separation::Pooled | Separation::File => format!("the rows of {tenant}"),
    }
}

fn remove_file(folder: &Path, tenant: TenantId) -> Result<(), StoreError> {
    let file = file_of(folder, tenant);
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

async fn separation_of_living(control: &Database, tenant: TenantId) -> Result<Separation, StoreError> {
    const SQL: &str = "SELECT separation FROM tenants WHERE id = $1 AND deleted_at IS NULL";
    let row = control.in_scope(Scope::Tenant(tenant)).fetch_optional(SQL, values![tenant]).await?;
    row.ok_or(StoreError::NotFound { what: "tenant" })?.parsed("separation")
}

fn own_schema(tenant: TenantId) -> String {
    format!("tenant_{}", tenant.hex())
}

fn own_database(tenant: TenantId) -> String {
    format!("atelier_{}", tenant.hex())
}

/// A tenant's place on the server, as it is called; nothing is looked at.
pub(crate) fn place_on_server(server: &Server, tenant: TenantId, separation: Separation) -> Database {
    let scope = Scope::Tenant(tenant);
    match separation {
        Separation::Database => server.in_database(&own_database(tenant)).own_schema(TENANTS_SCHEMA, scope),
        Separation::Schema => server.schema(&own_schema(tenant), scope),
        Separation::Pooled | Separation::File => server.schema(TENANTS_SCHEMA, scope),
    }
}

pub(crate) async fn create_on_server(
    server: &Server,
    tenant: TenantId,
    separation: Separation,
    now: Timestamp,
) -> Result<(), StoreError> {
    if separation == Separation::Database {
        server.create_database(&own_database(tenant)).await?;
    }
    migrate_on_server(server, tenant, separation, now).await?;
    let place = place_on_server(server, tenant, separation);
    let made = async {
        let mut transaction = place.begin().await?;
        identify(&mut transaction, tenant, now).await?;
        transaction.commit(Unrecorded::Place.permit()).await
    };
    let made = made.await;
    place.close().await;
    made
}

async fn open_on_server(
    server: &Server,
    tenant: TenantId,
    separation: Separation,
    now: Timestamp,
) -> Result<Database, StoreError> {
    // Made anew by its owner, an own schema that is gone would look like a tenant who never did anything.
    let is_there = is_on_server(server, tenant, separation).await;
    if !is_there.map_err(|error| damaged_if_missing(error, tenant, separation))? {
        return Err(emptied(called(tenant, separation)));
    }
    migrate_on_server(server, tenant, separation, now).await?;
    let place = place_on_server(server, tenant, separation);
    let stands = async {
        check_identity(&place, tenant).await?;
        walls::must_stand(inspect_place(&place, &called(tenant, separation), tenant, separation).await?)
    };
    match stands.await {
        Ok(()) => Ok(place),
        Err(error) => {
            place.close().await;
            Err(error)
        }
    }
}

/// Whether a tenant's own schema or database is there, with the schema's history in it.
async fn is_on_server(server: &Server, tenant: TenantId, separation: Separation) -> Result<bool, StoreError> {
    match separation {
        Separation::Schema => migrate::is_made(server, &own_schema(tenant)).await,
        Separation::Database => {
            let server = server.in_database(&own_database(tenant));
            let made = migrate::is_made(&server, TENANTS_SCHEMA).await;
            server.close().await;
            made
        }
        Separation::Pooled | Separation::File => Ok(true),
    }
}

/// What tenants share was brought up to date when the store was opened.
async fn migrate_on_server(
    server: &Server,
    tenant: TenantId,
    separation: Separation,
    now: Timestamp,
) -> Result<(), StoreError> {
    let steps = migrate::TENANT.postgres;
    match separation {
        Separation::Schema => migrate::migrate_schema(server, &own_schema(tenant), steps, now).await,
        Separation::Database => {
            let server = server.in_database(&own_database(tenant));
            let migrated = migrate::migrate_schema(&server, TENANTS_SCHEMA, steps, now).await;
            server.close().await;
            migrated
        }
        Separation::Pooled | Separation::File => Ok(()),
    }
}

async fn remove_on_server(server: &Server, tenant: TenantId, separation: Separation) -> Result<(), StoreError> {
    match separation {
        Separation::Schema => migrate::drop_schema(server, &own_schema(tenant)).await,
        Separation::Database => server.drop_database(&own_database(tenant)).await,
        Separation::Pooled | Separation::File => {
            let mut transaction = place_on_server(server, tenant, separation).begin().await?;
            transaction.fetch_one("SELECT erase_rows() AS removed", values![]).await?;
            transaction.commit(Unrecorded::Place.permit()).await
        }
    }
}

/// Writes into a place whose it is.
async fn identify(transaction: &mut Transaction, tenant: TenantId, now: Timestamp) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO tenant_identity (tenant_id, created_at) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    transaction.execute(SQL, values![tenant, now]).await.map(|_| ())
}

async fn check_identity(place: &Database, tenant: TenantId) -> Result<(), StoreError> {
    const SQL: &str = "SELECT tenant_id FROM tenant_identity WHERE tenant_id = $1";
    match place.fetch_optional(SQL, values![tenant]).await? {
        Some(_) => Ok(()),
        None => Err(StoreError::WrongPlace { tenant }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_that_cannot_be_made_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let (tenants, places) = places_in(folder.path()).await;
        let now = Timestamp::from_seconds(1);
        let tenant = TenantId::generate(now, [1; 10]);
        // Where SQLite would write its log there lies a folder.
        fs::create_dir(tenants.join(format!("{}.db-wal", tenant.hex()))).unwrap();
        assert!(places.create(tenant, Separation::File, now).await.is_err());
        assert!(!file_of(&tenants, tenant).exists());
    }

    /// An empty folder for files, and places in it whose control database knows nobody.
    async fn places_in(folder: &Path) -> (PathBuf, TenantPlaces) {
        let control = Database::open_sqlite(&folder.join("control.db"), true, 1, Scope::Control).await.unwrap();
        let tenants = folder.join("tenants");
        fs::create_dir(&tenants).unwrap();
        (tenants.clone(), TenantPlaces::in_folder(tenants, control))
    }

    #[tokio::test]
    async fn a_file_that_does_not_say_any_more_whose_it_is_is_nobodys() {
        let folder = tempfile::tempdir().unwrap();
        let (tenants, places) = places_in(folder.path()).await;
        let now = Timestamp::from_seconds(1);
        let tenant = TenantId::generate(now, [1; 10]);
        places.create(tenant, Separation::File, now).await.unwrap();
        let file = file_of(&tenants, tenant);
        let database = Database::open_sqlite(&file, false, 1, Scope::Tenant(tenant)).await.unwrap();
        let mut transaction = database.begin().await.unwrap();
        transaction.execute("DELETE FROM tenant_identity", values![]).await.unwrap();
        transaction.commit(Unrecorded::Place.permit()).await.unwrap();
        database.close().await;
        assert!(matches!(places.get(tenant, now).await, Err(StoreError::WrongPlace { .. })));
    }

    #[tokio::test]
    async fn a_file_from_before_files_said_so_is_theirs_whose_rows_are_in_it() {
        const ROW: &str = "INSERT INTO sources VALUES ($1, 'src', 'n', 'upload', 'd', 1, 'x', 1)";
        let folder = tempfile::tempdir().unwrap();
        let (tenants, places) = places_in(folder.path()).await;
        let now = Timestamp::from_seconds(1);
        let (tenant, stranger) = (TenantId::generate(now, [1; 10]), TenantId::generate(now, [2; 10]));
        for whose in [tenant, stranger] {
            let file = file_of(&tenants, tenant);
            let database = Database::open_sqlite(&file, true, 1, Scope::Tenant(tenant)).await.unwrap();
            let first = &migrate::TENANT.sqlite[..1];
            migrate::migrate(&database, "file", first, now).await.unwrap();
            let mut transaction = database.begin().await.unwrap();
            transaction.execute(ROW, values![whose]).await.unwrap();
            transaction.commit(Unrecorded::Place.permit()).await.unwrap();
            database.close().await;
            match places.get(tenant, now).await {
                Ok(_) => assert_eq!(whose, tenant),
                Err(StoreError::WrongPlace { .. }) => assert_eq!(whose, stranger),
                Err(error) => panic!("{error}"),
            }
            places.close_all().await;
            places.remove_litter(tenant).unwrap();
            assert!(!file.exists());
        }
    }

    #[tokio::test]
    async fn what_cannot_be_removed_is_not_said_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let (tenants, places) = places_in(folder.path()).await;
        let tenant = TenantId::generate(Timestamp::from_seconds(1), [1; 10]);
        places.remove_litter(tenant).unwrap();
        fs::create_dir(file_of(&tenants, tenant)).unwrap();
        assert!(places.remove_litter(tenant).is_err());
    }

    #[tokio::test]
    async fn of_too_many_places_the_oldest_closes_that_nobody_uses() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open_sqlite(&folder.path().join("x.db"), true, 1, Scope::Control).await.unwrap();
        let tenant = |at: usize| TenantId::generate(Timestamp::from_seconds(1), [at as u8; 10]);
        let mut open = OpenPlaces::default();
        let mut put = |at: usize, is_heavy: bool| {
            let place = OpenPlace { database: Arc::new(database.clone()), is_heavy, last_use: at as u64 };
            open.by_tenant.insert(tenant(at), place);
        };
        // Those without connections of their own are the older ones, and count for nothing here.
        let (light, heavy) = (0..3, 3..3 + TENANT_DATABASES_OPEN_MAX);
        light.for_each(|at| put(at, false));
        heavy.clone().for_each(|at| put(at, true));
        open.close_least_recently_used().await;
        assert_eq!(open.by_tenant.len(), heavy.end, "as many as may be");

        let used = Arc::clone(&open.by_tenant[&tenant(heavy.start)].database);
        let last = OpenPlace { database: Arc::new(database.clone()), is_heavy: true, last_use: u64::MAX };
        open.by_tenant.insert(tenant(heavy.end), last);
        open.close_least_recently_used().await;
        let closed: Vec<_> = (0..=heavy.end).filter(|at| !open.by_tenant.contains_key(&tenant(*at))).collect();
        assert_eq!(closed, [heavy.start + 1], "the oldest is in use, the next is not");
        drop(used);
    }
}
