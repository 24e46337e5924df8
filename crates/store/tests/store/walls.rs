//! What PostgreSQL itself holds against us: row level security, roles, and rows that do not change.

use atelier_domain::Plan;

use crate::world::{Backend, World};

#[tokio::test]
async fn the_application_sees_nothing_unless_it_says_for_whom() {
    let world = World::open(Backend::postgres()).await;
    let acme = world.tenant("acme", Plan::Tuned).await;
    let evil = world.tenant("evil", Plan::Tuned).await;
    world.learn(&acme, 1).await;
    drop(crate::usage::reserve(&world, &acme).await);
    let database = world.backend.test_database();
    let ask = |settings: &str, statement: &str| database.sql_as("atelier_app", &format!("{settings}; {statement}"));
    let as_evil = format!("SET app.scope = 'tenant'; SET app.tenant = '{}'", evil.id());
    let as_acme = format!("SET app.scope = 'tenant'; SET app.tenant = '{}'", acme.id());
    let tables = database.sql(
        "SELECT c.oid::regclass FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relkind = 'r' AND a.attname = 'tenant_id' AND relnamespace::regnamespace::text LIKE 'atelier%'",
    );
    assert!(tables.lines().count() >= 12, "{tables}");
    for table in tables.lines() {
        let count = format!("SELECT count(*) FROM {table}");
        assert_eq!(ask("SELECT 1", &count).unwrap(), "1\n0", "{table}");
        let acmes = format!("SELECT count(*) FROM {table} WHERE tenant_id = '{}'", acme.id());
        assert_eq!(ask(&as_evil, &acmes).unwrap(), "0", "{table}");
        assert!(ask("SELECT 1", &format!("TRUNCATE {table} CASCADE")).is_err(), "{table}");
        assert!(ask("SELECT 1", &format!("ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")).is_err(), "{table}");
    }
    let move_in = |table: &str| format!("UPDATE {table} SET tenant_id = '{}'", evil.id());
    assert!(ask(&as_acme, &move_in("atelier_tenants.sources")).unwrap_err().contains("row-level security"));
    let intruder =
        format!("INSERT INTO atelier_tenants.sources VALUES ('{}', 'src', 'n', 'upload', 'd', 1, 'x', 1)", acme.id());
    assert!(ask(&as_evil, &intruder).unwrap_err().contains("row-level security"));
}

#[tokio::test]
async fn a_row_cannot_point_into_another_tenants() {
    let world = World::open(Backend::postgres()).await;
    let acme = world.tenant("acme", Plan::Tuned).await;
    let evil = world.tenant("evil", Plan::Tuned).await;
    let version = world.learn(&acme, 1).await;
    let database = world.backend.test_database();
    let alias = format!("INSERT INTO atelier_tenants.aliases VALUES ('{}', 'live', 1, 1)", evil.id());
    assert!(database.sql_as("postgres", &alias).unwrap_err().contains("foreign key"));
    let event = format!(
        "INSERT INTO atelier_tenants.run_events VALUES ('{}', '{}', 99, 'state', '{{}}', 1)",
        evil.id(),
        version.run
    );
    assert!(database.sql_as("postgres", &event).unwrap_err().contains("foreign key"));
}

#[tokio::test]
async fn what_is_append_only_is_so_for_everybody() {
    let world = World::open(Backend::postgres()).await;
    let acme = world.tenant("acme", Plan::Tuned).await;
    world.learn(&acme, 1).await;
    drop(crate::usage::reserve(&world, &acme).await);
    let database = world.backend.test_database();
    let sets = format!("SET app.scope = 'control'; SET app.tenant = '{}'", acme.id());
    for table in ["atelier.usage_events", "atelier.operator_audit", "atelier_tenants.audit"] {
        for statement in [
            format!("UPDATE {table} SET tenant_id = tenant_id"),
            format!("DELETE FROM {table}"),
            format!("TRUNCATE {table}"),
        ] {
            for (role, reason) in
                [("atelier_app", "permission denied"), ("atelier_owner", "append-only"), ("postgres", "append-only")]
            {
                let said = database.sql_as(role, &format!("{sets}; {statement}")).unwrap_err();
                assert!(said.contains(reason), "{role} {statement}: {said}");
            }
        }
    }
    let change = format!("{sets}; UPDATE atelier_tenants.versions SET digest = 'x'");
    assert!(database.sql_as("atelier_app", &change).unwrap_err().contains("permission denied"));
    assert!(database.sql_as("postgres", &change).unwrap_err().contains("append-only"));
    let said = database.sql_as("atelier_app", &format!("{sets}; SELECT atelier_tenants.erase_rows()")).unwrap_err();
    assert!(said.contains("the tenant lives"), "{said}");
}
