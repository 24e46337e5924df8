//! Walls that drift: each change by somebody's hand is found, and a store behind such walls does not open.

use std::fs;

use atelier_domain::Plan;
use atelier_store::{StoreError, WallFinding, inspect};

use crate::world::{Backend, World, assert_error, database_options, open_store};

/// What is done to a wall, what undoes it, and what must be said.
const DRIFTS: &[(&str, &str, &str)] = &[
    (
        "ALTER TABLE atelier_tenants.sources DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE atelier_tenants.sources ENABLE ROW LEVEL SECURITY",
        "sources is without forced row level security",
    ),
    (
        "ALTER TABLE atelier.keys NO FORCE ROW LEVEL SECURITY",
        "ALTER TABLE atelier.keys FORCE ROW LEVEL SECURITY",
        "keys is without forced row level security",
    ),
    (
        "CREATE POLICY wider ON atelier_tenants.runs USING (true)",
        "DROP POLICY wider ON atelier_tenants.runs",
        "runs has another policy than ours",
    ),
    (
        "ALTER POLICY wall ON atelier_tenants.jobs WITH CHECK (true)",
        "ALTER POLICY wall ON atelier_tenants.jobs
            WITH CHECK (tenant_id = NULLIF(current_setting('app.tenant', true), ''))",
        "jobs has another policy than ours",
    ),
    (
        "CREATE TABLE atelier_tenants.notes (tenant_id TEXT, note TEXT)",
        "DROP TABLE atelier_tenants.notes",
        "notes is no table of ours",
    ),
    (
        "ALTER TABLE atelier.job_hints RENAME TO hints",
        "ALTER TABLE atelier.hints RENAME TO job_hints",
        "job_hints is not there",
    ),
    (
        "CREATE VIEW atelier_tenants.seen AS SELECT * FROM atelier_tenants.sources",
        "DROP VIEW atelier_tenants.seen",
        "seen is a view with its owner's eyes",
    ),
    (
        "CREATE MATERIALIZED VIEW atelier.kept AS SELECT * FROM atelier.keys",
        "DROP MATERIALIZED VIEW atelier.kept",
        "kept is no table of ours",
    ),
    (
        "GRANT TRUNCATE ON atelier_tenants.runs TO atelier_app",
        "REVOKE TRUNCATE ON atelier_tenants.runs FROM atelier_app",
        "lets the application TRUNCATE",
    ),
    (
        "GRANT UPDATE (cost) ON atelier.usage_events TO atelier_app",
        "REVOKE UPDATE (cost) ON atelier.usage_events FROM atelier_app",
        "usage_events can be changed by the application",
    ),
    (
        "GRANT DELETE ON atelier_tenants.audit TO atelier_app",
        "REVOKE DELETE ON atelier_tenants.audit FROM atelier_app",
        "audit can be deleted from by the application",
    ),
    (
        "GRANT SELECT ON atelier.keys TO PUBLIC",
        "REVOKE SELECT ON atelier.keys FROM PUBLIC",
        "keys is open to every role",
    ),
    (
        "ALTER TABLE atelier.operator_audit DISABLE TRIGGER never_change",
        "ALTER TABLE atelier.operator_audit ENABLE TRIGGER never_change",
        "operator_audit has lost the trigger never_change",
    ),
    (
        "ALTER TABLE atelier_tenants.audit DISABLE TRIGGER never_empty",
        "ALTER TABLE atelier_tenants.audit ENABLE TRIGGER never_empty",
        "audit has lost the trigger never_empty",
    ),
    (
        "ALTER TABLE atelier_tenants.aliases OWNER TO atelier_app",
        "ALTER TABLE atelier_tenants.aliases OWNER TO atelier_owner",
        "aliases belongs to the application's role",
    ),
    (
        "GRANT CREATE ON SCHEMA atelier TO atelier_app",
        "REVOKE CREATE ON SCHEMA atelier FROM atelier_app",
        "may make tables",
    ),
    (
        "GRANT INSERT ON atelier.schema_history TO atelier_app",
        "REVOKE INSERT ON atelier.schema_history FROM atelier_app",
        "schema_history can be written by the application",
    ),
    (
        "CREATE FUNCTION atelier.peek() RETURNS BIGINT LANGUAGE sql SECURITY DEFINER AS 'SELECT 1::BIGINT'",
        "DROP FUNCTION atelier.peek()",
        "the function peek runs with its owner's rights",
    ),
    (
        "ALTER TABLE atelier_tenants.versions DISABLE TRIGGER never_change",
        "ALTER TABLE atelier_tenants.versions ENABLE TRIGGER never_change",
        "versions has lost the trigger",
    ),
];

/// Drifts of what the whole server shares; their undoing must not be forgotten, and no other test may see them. So they
/// are done to a role of the test's own.
const ROLE_DRIFTS: &[(&str, &str, &str)] = &[
    ("ALTER ROLE {role} BYPASSRLS", "ALTER ROLE {role} NOBYPASSRLS", "bypasses row level security"),
    ("ALTER ROLE {role} SUPERUSER", "ALTER ROLE {role} NOSUPERUSER", "is a superuser"),
    ("ALTER ROLE {role} CREATEROLE", "ALTER ROLE {role} NOCREATEROLE", "may make roles"),
    ("GRANT atelier_owner TO {role}", "REVOKE atelier_owner FROM {role}", "owns the schema"),
    (
        "ALTER ROLE {role} SET app.scope = 'control'",
        "ALTER ROLE {role} RESET app.scope",
        "begins with a setting that decides what it sees",
    ),
];

async fn findings(world: &World) -> Vec<WallFinding> {
    let folder = world.folder.path().join("data");
    inspect(&folder, &database_options(&world.backend)).await.unwrap().expect("there is a database")
}

fn says(findings: &[WallFinding], expected: &str) -> bool {
    findings.iter().any(|finding| finding.to_string().contains(expected))
}

#[tokio::test]
async fn each_drift_is_found_on_postgres() {
    let world = World::open(Backend::postgres()).await;
    world.tenant("acme", Plan::Tuned).await;
    let database = world.backend.test_database();
    assert_eq!(findings(&world).await, []);
    for (drift, undo, expected) in DRIFTS {
        database.sql(drift);
        let found = findings(&world).await;
        assert!(says(&found, expected), "{drift}: {found:?}");
        database.sql(undo);
    }
    assert_eq!(findings(&world).await, [], "everything is undone");
}

#[tokio::test]
async fn a_role_that_can_do_too_much_is_found() {
    let backend = Backend::postgres_with_own_role();
    let world = World::open(backend).await;
    let database = world.backend.test_database();
    assert_eq!(findings(&world).await, []);
    for (drift, undo, expected) in ROLE_DRIFTS {
        let named = |statement: &str| statement.replace("{role}", &database.application_role);
        database.sql(&named(drift));
        let found = findings(&world).await;
        assert!(says(&found, expected), "{drift}: {found:?}");
        database.sql(&named(undo));
    }
    assert_eq!(findings(&world).await, []);
}

#[tokio::test]
async fn a_store_behind_drifted_walls_does_not_open() {
    let world = World::open(Backend::postgres()).await;
    world.tenant("acme", Plan::Tuned).await;
    let World { store, clock, folder, backend, .. } = world;
    store.close().await;
    drop(store);
    let (drift, undo, expected) = DRIFTS[0];
    backend.test_database().sql(drift);
    match open_store(&backend, &folder, &clock).await {
        Err(StoreError::WallsDown { findings }) => assert!(says(&findings, expected), "{findings:?}"),
        other => panic!("opened: {:?}", other.map(|_| ())),
    }
    backend.test_database().sql(undo);
    open_store(&backend, &folder, &clock).await.unwrap();
}

#[tokio::test]
async fn a_trigger_that_is_gone_is_found_on_sqlite() {
    let world = World::open(Backend::Sqlite).await;
    world.tenant("acme", Plan::Tuned).await;
    assert_eq!(findings(&world).await, []);
    let World { store, clock, folder, backend, .. } = world;
    store.close().await;
    drop(store);
    let control = folder.path().join("data/control.db");
    let kept = fs::read(&control).unwrap();
    // Of the same length, so that the file stays a database: the ledger's guard now guards nothing.
    let drifted = replaced(&kept, b"BEFORE DELETE ON usage_events", b"BEFORE DELETE ON job_hints   ");
    fs::write(&control, drifted).unwrap();
    let opened = open_store(&backend, &folder, &clock).await;
    assert_error!(opened, StoreError::WallsDown { .. } | StoreError::Damaged { .. });
    fs::write(&control, kept).unwrap();
    open_store(&backend, &folder, &clock).await.unwrap();
}

/// Everywhere: a page that was split keeps what it held until something else takes the room.
fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    assert_eq!(old.len(), new.len());
    let mut replaced = bytes.to_vec();
    let mut from = 0;
    while let Some(at) = replaced[from..].windows(old.len()).position(|window| window == old) {
        from += at + new.len();
        replaced[from - new.len()..from].copy_from_slice(new);
    }
    assert!(from > 0, "the file holds it");
    replaced
}

#[tokio::test]
async fn case_32_a_file_in_another_tenants_place_is_refused() {
    let world = World::open(Backend::Sqlite).await;
    let (acme, evil) = (world.tenant("acme", Plan::Tuned).await, world.tenant("evil", Plan::Tuned).await);
    world.learn(&acme, 1).await;
    let World { store, clock, folder, backend, .. } = world;
    store.close().await;
    drop(store);
    let file = |tenant: &crate::world::Tenant| folder.path().join(format!("data/tenants/{}.db", tenant.id().hex()));
    let kept = fs::read(file(&evil)).unwrap();
    fs::copy(file(&acme), file(&evil)).unwrap();
    match open_store(&backend, &folder, &clock).await {
        Err(StoreError::WrongPlace { tenant }) => assert_eq!(tenant, evil.id()),
        other => panic!("opened: {:?}", other.map(|_| ())),
    }
    let found = inspect(&folder.path().join("data"), &database_options(&backend)).await.unwrap().unwrap();
    assert!(says(&found, &format!("is not the place of {}", evil.id())), "{found:?}");
    fs::write(file(&evil), kept).unwrap();
    open_store(&backend, &folder, &clock).await.unwrap();
}

#[tokio::test]
async fn case_32_rows_that_are_nobodys_place_are_refused() {
    let world = World::open(Backend::postgres()).await;
    let acme = world.tenant("acme", Plan::Tuned).await;
    let World { store, clock, folder, backend, .. } = world;
    store.close().await;
    drop(store);
    backend.test_database().sql("DELETE FROM atelier_tenants.tenant_identity");
    match open_store(&backend, &folder, &clock).await {
        Err(StoreError::WrongPlace { tenant }) => assert_eq!(tenant, acme.id()),
        other => panic!("opened: {:?}", other.map(|_| ())),
    }
}
