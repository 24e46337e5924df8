//! The audit trail: every change to it is found, it survives crashes and moves, and what it says is true.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use atelier_access::right::{
    CreateTenant, ManageKeys, ManageTenant, MoveAlias, ReadAudit, ReadOperatorAudit, ReadSources, WriteSources,
};
use atelier_access::{Action, Caller, Denied};
use atelier_domain::limits::AUDIT_NOTES_PER_TENANT_MAX;
use atelier_domain::{Plan, Role};
use atelier_store::{
    AuditQuery, AuditRecord, Break, ChainKind, ChainReport, EventType, Fault, NewSource, SourceOrigin, Store,
    StoreError,
};
use bytes::Bytes;

use crate::postgres::TestDatabase;
use crate::world::{Backend, Tenant, World, assert_error, new_key, on_each_database, open_store};

/// How long a note may take to be written on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);

async fn trail(store: &Store, tenant: &Tenant, query: AuditQuery) -> Vec<AuditRecord> {
    let query = AuditQuery { limit: 100, ..query };
    store.audit(&tenant.may(ReadAudit { tenant: tenant.id() }), &query).await.unwrap().records
}

/// What was done to the tenant's code and models, oldest first.
pub async fn work(world: &World, tenant: &Tenant) -> Vec<AuditRecord> {
    in_order(trail(&world.store, tenant, AuditQuery::default()).await, ChainKind::Work)
}

fn in_order(mut records: Vec<AuditRecord>, kind: ChainKind) -> Vec<AuditRecord> {
    records.retain(|record| record.chain == kind);
    records.sort_by_key(|record| record.sequence);
    records
}

async fn reports(store: &Store, tenant: &Tenant) -> Vec<ChainReport> {
    store.verify_audit(&tenant.may(ReadAudit { tenant: tenant.id() })).await.unwrap()
}

/// Where the tenant's trail is not what was written.
pub async fn broken(store: &Store, tenant: &Tenant) -> Option<(ChainKind, Break)> {
    reports(store, tenant).await.into_iter().find_map(|report| Some((report.kind, report.broken?)))
}

/// A table of the trail, reached past the store as somebody with the database in hand reaches it.
enum Table<'a> {
    Control,
    Work(&'a Tenant),
}

impl Table<'_> {
    /// Its name, that of its column of places in the chain, and the end of a statement that says whose rows.
    fn names(&self, world: &World) -> (String, &'static str) {
        match (self, &world.backend) {
            (Table::Control, Backend::Sqlite) => ("operator_audit".to_owned(), "chain_sequence"),
            (Table::Control, _) => ("atelier.operator_audit".to_owned(), "chain_sequence"),
            (Table::Work(_), Backend::Sqlite) => ("audit".to_owned(), "sequence"),
            (Table::Work(tenant), Backend::PostgresSchema(_)) => {
                (format!("tenant_{}.audit", tenant.id().hex()), "sequence")
            }
            (Table::Work(_), _) => ("atelier_tenants.audit".to_owned(), "sequence"),
        }
    }

    /// Runs statements in which `{audit}` stands for the table and `{n}` for its column of places.
    async fn tamper(&self, world: &World, statements: &str) {
        let (table, number) = self.names(world);
        let statements = statements.replace("{audit}", &table).replace("{n}", number);
        match (self, &world.backend) {
            (Table::Control, Backend::Sqlite) => in_file(world, "control.db", &statements).await,
            (Table::Work(tenant), Backend::Sqlite) => {
                in_file(world, &format!("tenants/{}.db", tenant.id().hex()), &statements).await;
            }
            (Table::Work(tenant), Backend::PostgresDatabase(_)) => {
                // Not dropped as a database of the test's own: the store's is.
                let own = std::mem::ManuallyDrop::new(TestDatabase::named(format!("atelier_{}", tenant.id().hex())));
                own.sql(&format!("SET session_replication_role = replica; {statements}"));
            }
            _ => {
                world.backend.test_database().sql(&format!("SET session_replication_role = replica; {statements}"));
            }
        }
    }
}

/// Changes a file past its triggers, which are there again afterwards.
async fn in_file(world: &World, file: &str, statements: &str) {
    use sqlx::{AssertSqlSafe, Connection, Executor, Row, SqliteConnection};
    let path = world.folder.path().join("data").join(file);
    let mut connection = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    let triggers = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name LIKE '%audit'";
    let triggers = connection.fetch_all(triggers).await.unwrap();
    for trigger in &triggers {
        let drop = format!("DROP TRIGGER {}", trigger.get::<String, _>("name"));
        connection.execute(AssertSqlSafe(drop)).await.unwrap();
    }
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&mut connection).await.unwrap();
    for trigger in &triggers {
        connection.execute(AssertSqlSafe(trigger.get::<String, _>("sql"))).await.unwrap();
    }
    connection.close().await.unwrap();
}

/// Runs statements on a file of a store that is closed.
pub async fn run_in_file(world: &World, file: &str, statements: &str) {
    use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
    let path = world.folder.path().join("data").join(file);
    let mut connection = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// One change by somebody with the database in hand, and what is said to it. The chain has six events and is one
/// tenant's, `{whose}`.
const CHANGES: &[(&str, u64, Fault)] = &[
    ("UPDATE {audit} SET subject = 'another' WHERE {whose} AND {n} = 3", 3, Fault::Altered),
    ("UPDATE {audit} SET at = at + 1 WHERE {whose} AND {n} = 1", 1, Fault::Altered),
    ("UPDATE {audit} SET actor = 'nobody' WHERE {whose} AND {n} = 2", 2, Fault::Altered),
    ("UPDATE {audit} SET action = 'bootstrap' WHERE {whose} AND {n} = 2", 2, Fault::Altered),
    ("UPDATE {audit} SET detail = '{\"bytes\":0}' WHERE {whose} AND {n} = 4", 4, Fault::Altered),
    ("UPDATE {audit} SET actor_owner = 'user-1' WHERE {whose} AND {n} = 5", 5, Fault::Altered),
    ("UPDATE {audit} SET actor_key = NULL WHERE {whose} AND {n} = 1", 1, Fault::Altered),
    (
        "UPDATE {audit} SET id = 'audit_log-00000000000000000000000000000000' WHERE {whose} AND {n} = 6",
        6,
        Fault::Altered,
    ),
    ("UPDATE {audit} SET hash = NULL WHERE {whose} AND {n} = 1", 2, Fault::Altered),
    ("UPDATE {audit} SET hash = NULL WHERE {whose} AND {n} = 6", 6, Fault::Unhashed),
    ("UPDATE {audit} SET hash = NULL, subject = 'another' WHERE {whose} AND {n} <= 6", 6, Fault::Replaced),
    (
        "UPDATE {audit} SET {n} = 99 WHERE {whose} AND {n} = 2; UPDATE {audit} SET {n} = 2 WHERE {whose} AND {n} = 3;
            UPDATE {audit} SET {n} = 3 WHERE {whose} AND {n} = 99",
        2,
        Fault::Altered,
    ),
    ("DELETE FROM {audit} WHERE {whose} AND {n} = 1", 1, Fault::Missing),
    ("DELETE FROM {audit} WHERE {whose} AND {n} = 3", 3, Fault::Missing),
    (
        "DELETE FROM {audit} WHERE {whose} AND {n} = 3; UPDATE {audit} SET {n} = {n} - 1 WHERE {whose} AND {n} > 3",
        3,
        Fault::Altered,
    ),
    ("DELETE FROM {audit} WHERE {whose} AND {n} = 6", 6, Fault::Cut),
    ("DELETE FROM {audit} WHERE {whose}", 6, Fault::Cut),
    (
        "INSERT INTO {audit} (tenant_id, {n}, at, actor, action, subject, detail, id)
            SELECT tenant_id, 7, at, actor, action, subject, detail, 'audit_log-00000000000000000000000000000000'
            FROM {audit} WHERE {whose} AND {n} = 6",
        7,
        Fault::Unhashed,
    ),
    (
        "INSERT INTO {audit} (tenant_id, {n}, at, actor, action, subject, detail, id, actor_key, hash)
            SELECT tenant_id, 7, at, actor, action, subject, detail, 'audit_log-00000000000000000000000000000000',
            actor_key, hash FROM {audit} WHERE {whose} AND {n} = 6",
        7,
        Fault::Altered,
    ),
];

/// Each change is found where it is, and undone.
async fn check_changes(world: &World, tenant: &Tenant, table: &Table<'_>, kind: ChainKind) {
    let is_control = matches!(table, Table::Control);
    // Other chains of the same table stay what they are.
    let whose = format!("tenant_id = '{}'", tenant.id());
    table.tamper(world, &format!("CREATE TABLE {{audit}}_kept AS SELECT * FROM {{audit}} WHERE {whose}")).await;
    let overriding =
        if is_control && !matches!(world.backend, Backend::Sqlite) { "OVERRIDING SYSTEM VALUE" } else { "" };
    let undo =
        format!("DELETE FROM {{audit}} WHERE {whose}; INSERT INTO {{audit}} {overriding} SELECT * FROM {{audit}}_kept");
    for (change, sequence, fault) in CHANGES {
        let change = change.replace("{whose}", &whose);
        table.tamper(world, &change).await;
        let found = broken(&world.store, tenant).await;
        let (found_in, broken_at) = found.unwrap_or_else(|| panic!("nobody noticed: {change}"));
        // The control database is read in the order of its rows, where places that are swapped leave a gap first.
        let is_swap = is_control && change.contains("{n} = 99");
        let fault = if is_swap { Fault::Missing } else { *fault };
        assert_eq!((found_in, broken_at.sequence, broken_at.fault), (kind, *sequence, fault), "{change}");
        assert_eq!(broken_at.event.is_none(), fault == Fault::Cut, "{change}");
        table.tamper(world, &undo).await;
        assert_eq!(broken(&world.store, tenant).await, None, "undone: {change}");
    }
    table.tamper(world, "DROP TABLE {audit}_kept").await;
}

on_each_database! {
    async fn any_single_change_to_a_chain_is_found_where_it_is(world: World) {
        let (acme, other) = (world.tenant("acme", Plan::Tuned).await, world.tenant("other", Plan::Tuned).await);
        world.learn(&other, 9).await;
        world.learn(&acme, 1).await;
        world.learn(&acme, 2).await;
        for _ in 0..5 {
            world.key(&acme, Role::Member).await;
        }
        let found = reports(&world.store, &acme).await;
        assert_eq!(found.iter().map(|report| (report.events, report.broken)).collect::<Vec<_>>(), [(6, None), (6, None)]);
        check_changes(&world, &acme, &Table::Work(&acme), ChainKind::Work).await;
        check_changes(&world, &acme, &Table::Control, ChainKind::Administration).await;
        assert_eq!(broken(&world.store, &other).await, None);

        // The head gone, or moved back.
        let heads = if matches!(world.backend, Backend::Sqlite) { "audit_heads" } else { "atelier.audit_heads" };
        let chain = format!("chain = 'work {}'", acme.id());
        Table::Control.tamper(&world, &format!("DELETE FROM {heads} WHERE {chain}")).await;
        let (kind, found) = broken(&world.store, &acme).await.unwrap();
        assert_eq!((kind, found.fault), (ChainKind::Work, Fault::Headless));
        let everything = world.store.verify_operator_audit(&world.operator.grant(ReadOperatorAudit).unwrap()).await.unwrap();
        assert_eq!(everything.len(), 5, "the installation's and two of each tenant");
        assert_eq!(everything.iter().filter(|report| report.broken.is_some()).count(), 1);
    }

    async fn a_head_that_a_crash_left_behind_follows(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        world.learn(&acme, 1).await;
        let events = work(&world, &acme).await;
        let heads = if matches!(world.backend, Backend::Sqlite) { "audit_heads" } else { "atelier.audit_heads" };
        let back = |event: &AuditRecord| format!(
            "UPDATE {heads} SET sequence = {}, hash = '{}' WHERE chain = 'work {}'",
            event.sequence, event.hash.unwrap(), acme.id()
        );
        // As a kill between the tenant's commit and the head's leaves it: the trail is whole, and the next start follows.
        Table::Control.tamper(&world, &back(&events[1])).await;
        assert_eq!(broken(&world.store, &acme).await, None);
        let world = world.reopen().await;
        assert_eq!(broken(&world.store, &acme).await, None);
        Table::Work(&acme).tamper(&world, "DELETE FROM {audit} WHERE {n} = 3").await;
        let (_, found) = broken(&world.store, &acme).await.expect("the head stood at the third event");
        assert_eq!((found.fault, found.sequence), (Fault::Cut, 3));

        // What is written after a cut does not heal it, however much it is, nor does a start.
        world.source(&acme).await;
        world.source(&acme).await;
        let (_, found) = broken(&world.store, &acme).await.unwrap();
        assert_eq!((found.fault, found.sequence), (Fault::Replaced, 3));
        let world = world.reopen().await;
        assert_eq!(broken(&world.store, &acme).await.unwrap().1.fault, Fault::Replaced);

        // The next event follows too.
        let other = world.tenant("other", Plan::Tuned).await;
        world.learn(&other, 1).await;
        let events = work(&world, &other).await;
        let chain = format!("UPDATE {heads} SET sequence = 0, hash = '{}' WHERE chain = 'work {}'", "0".repeat(64), other.id());
        Table::Control.tamper(&world, &chain).await;
        world.source(&other).await;
        Table::Work(&other).tamper(&world, &format!("DELETE FROM {{audit}} WHERE {{n}} > {}", events.len())).await;
        assert_eq!(broken(&world.store, &other).await.unwrap().1.fault, Fault::Cut);
    }

    async fn writers_at_once_keep_one_chain(world: World) {
        let acme = Arc::new(world.tenant("acme", Plan::Tuned).await);
        let tasks: Vec<_> = (0..24)
            .map(|at: usize| {
                let (store, acme) = (world.store.clone(), Arc::clone(&acme));
                tokio::spawn(async move {
                    let tenant = acme.id();
                    if at.is_multiple_of(2) {
                        let source = NewSource { name: "code".to_owned(), origin: SourceOrigin::Upload, archive: Bytes::from(vec![7; at + 1]) };
                        store.create_source(&acme.may(WriteSources { tenant }), source).await.unwrap();
                    } else {
                        let grant = acme.may(ManageKeys { tenant });
                        store.create_key(&grant, new_key(&grant, Role::Member)).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let found = reports(&world.store, &acme).await;
        assert_eq!(found.iter().map(|report| (report.events, report.broken)).collect::<Vec<_>>(), [(13, None), (12, None)]);
        let numbers: Vec<u64> = work(&world, &acme).await.iter().map(|record| record.sequence).collect();
        assert_eq!(numbers, (1..=12).collect::<Vec<_>>());
        // And the head did not fall behind.
        Table::Work(&acme).tamper(&world, "DELETE FROM {audit} WHERE {n} = 12").await;
        assert!(broken(&world.store, &acme).await.is_some());
    }

    async fn events_from_before_there_were_hashes_are_bound_by_the_first_that_has_one(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        world.learn(&acme, 1).await;
        world.key(&acme, Role::Member).await;
        // As the version before wrote them.
        let heads = if matches!(world.backend, Backend::Sqlite) { "audit_heads" } else { "atelier.audit_heads" };
        let forget = "UPDATE {audit} SET hash = NULL, actor_key = NULL";
        Table::Control.tamper(&world, &format!("{forget}, {{n}} = NULL")).await;
        Table::Control.tamper(&world, &format!("UPDATE {heads} SET sequence = 0, hash = '{}'", "0".repeat(64))).await;
        Table::Work(&acme).tamper(&world, forget).await;
        assert_eq!(broken(&world.store, &acme).await, None, "nothing can be said about them yet");
        let world = world.reopen().await;
        world.key(&acme, Role::Member).await;
        world.source(&acme).await;
        let found = reports(&world.store, &acme).await;
        assert_eq!(found.iter().map(|report| (report.events, report.broken)).collect::<Vec<_>>(), [(3, None), (4, None)]);
        let old = trail(&world.store, &acme, AuditQuery::default()).await;
        let first = old.iter().find(|record| record.action == "create_key").unwrap();
        assert_eq!(first.actor.key, acme.admin.key(), "who did it is still known");

        Table::Work(&acme).tamper(&world, "UPDATE {audit} SET subject = 'another' WHERE {n} = 2").await;
        let (kind, found) = broken(&world.store, &acme).await.unwrap();
        assert_eq!((kind, found.sequence, found.fault), (ChainKind::Work, 4, Fault::Altered));
        Table::Control.tamper(&world, "UPDATE {audit} SET subject = 'another' WHERE action = 'create_tenant'").await;
        let (kind, found) = broken(&world.store, &acme).await.unwrap();
        assert_eq!((kind, found.sequence, found.fault), (ChainKind::Administration, 3, Fault::Altered));
    }

    async fn a_trail_of_the_version_before_is_taken_over(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        world.learn(&acme, 1).await;
        world.key(&acme, Role::Member).await;
        let told = |records: Vec<AuditRecord>| {
            let mut told: Vec<_> = records.into_iter().map(|record| (record.at, record.action, record.subject)).collect();
            told.sort();
            told
        };
        let before = told(trail(&world.store, &acme, AuditQuery::default()).await);
        world.store.close().await;
        undo_chains(&world, &acme).await;
        let world = world.reopen().await;
        let after = trail(&world.store, &acme, AuditQuery::default()).await;
        let ids: BTreeSet<_> = after.iter().map(|record| record.id.to_string()).collect();
        assert_eq!((ids.len(), after.len()), (5, 5), "each has an id of its own: {after:#?}");
        assert!(after.iter().all(|record| record.hash.is_none()));
        assert_eq!(told(after), before);
        world.key(&acme, Role::Member).await;
        world.source(&acme).await;
        let found = reports(&world.store, &acme).await;
        assert_eq!(found.iter().map(|report| (report.events, report.broken)).collect::<Vec<_>>(), [(3, None), (4, None)]);
        Table::Work(&acme).tamper(&world, "DELETE FROM {audit} WHERE {n} = 1").await;
        assert!(broken(&world.store, &acme).await.is_some());
    }

    async fn an_operator_in_a_tenants_place_is_on_record_as_such(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        world.learn(&acme, 1).await;
        world.learn(&acme, 2).await;
        let acting = world.operator.acting_for(acme.id()).unwrap();
        world.store.roll_back(&acting.grant(MoveAlias { tenant: acme.id() }).unwrap(), None).await.unwrap();
        for _ in 0..3 {
            let read = acting.grant(ReadSources { tenant: acme.id() }).unwrap();
            world.store.sources(&read).await.unwrap();
        }
        let seen = noted(&world, &acme, "access.operator", 1).await;
        let expected = format!("operator {} for {}", world.operator.key().unwrap(), acme.id());
        assert_eq!((seen[0].actor.text.as_str(), seen[0].subject.as_str()), (expected.as_str(), "read_sources"));
        assert_eq!(seen[0].actor.key, world.operator.key());
        let moved = work(&world, &acme).await.pop().unwrap();
        assert_eq!((moved.action.as_str(), moved.actor.text), ("move_alias", expected));
        // The tenant's own people are on record by what they change only.
        drop(acme.may(ReadSources { tenant: acme.id() }));
        assert_eq!(noted(&world, &acme, "access.operator", 1).await.len(), 1);
        assert_eq!(broken(&world.store, &acme).await, None);
    }

    async fn refusals_are_on_record_once_a_minute(world: World) {
        let (acme, other) = (world.tenant("acme", Plan::Tuned).await, world.tenant("other", Plan::Tuned).await);
        let member = world.member(&acme).await;
        let beyond = Denied::BeyondRole { role: Role::Member, action: Action::ManageKeys };
        let refused = |caller: &Caller, expected: Denied| {
            assert_eq!(caller.grant(ManageKeys { tenant: acme.id() }).map(|_| ()), Err(expected));
        };
        for _ in 0..100 {
            refused(&member, beyond);
        }
        let first = noted(&world, &acme, "access.refused", 1).await;
        assert_eq!((first.len(), first[0].subject.as_str(), &first[0].detail["times"]), (1, "manage_keys", &1.into()));
        assert_eq!(first[0].actor.text, member.to_string());
        world.advance(61);
        refused(&member, beyond);
        let both = noted(&world, &acme, "access.refused", 2).await;
        assert_eq!(both[0].detail["times"], 100, "what was only counted is in the next one");
        // A stranger's refusal is in the stranger's trail, where it says nothing of whom it was about.
        refused(&other.admin, Denied::Hidden);
        let theirs = noted(&world, &other, "access.refused", 1).await;
        assert!(!format!("{theirs:?}").contains(&acme.id().to_string()));
        assert_eq!(noted(&world, &acme, "access.refused", 2).await.len(), 2);
        // What was counted last is written when the store closes.
        refused(&member, beyond);
        world.store.close().await;
        let World { store, clock, operator, operator_key, folder, backend } = world;
        drop(store);
        let store = open_store(&backend, &folder, &clock).await.unwrap();
        let world = World { store, clock, operator, operator_key, folder, backend };
        assert_eq!(noted(&world, &acme, "access.refused", 3).await.len(), 3);
        assert_eq!(broken(&world.store, &acme).await, None);
    }

    async fn one_tenants_flood_of_refusals_is_bounded_and_hides_no_others(world: World) {
        let (acme, evil) = (world.tenant("acme", Plan::Tuned).await, world.tenant("evil", Plan::Tuned).await);
        for _ in 0..AUDIT_NOTES_PER_TENANT_MAX + 10 {
            let member = world.member(&evil).await;
            assert!(member.grant(ManageKeys { tenant: acme.id() }).is_err());
        }
        noted(&world, &evil, "access.refused", AUDIT_NOTES_PER_TENANT_MAX).await;
        let member = world.member(&acme).await;
        assert!(member.grant(ManageKeys { tenant: acme.id() }).is_err());
        assert_eq!(noted(&world, &acme, "access.refused", 1).await.len(), 1);
        let flood = noted(&world, &evil, "access.refused", AUDIT_NOTES_PER_TENANT_MAX).await;
        assert_eq!(flood.len(), AUDIT_NOTES_PER_TENANT_MAX);
        // A minute later there is room again.
        world.advance(61);
        let member = world.member(&evil).await;
        assert!(member.grant(ManageKeys { tenant: acme.id() }).is_err());
        noted(&world, &evil, "access.refused", AUDIT_NOTES_PER_TENANT_MAX + 1).await;
    }

    async fn a_trail_is_paged_and_filtered(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        world.advance(10);
        world.learn(&acme, 1).await;
        world.advance(10);
        let key = world.key(&acme, Role::Member).await.summary.id;
        let grant = acme.may(ReadAudit { tenant: acme.id() });
        let all = trail(&world.store, &acme, AuditQuery::default()).await;
        let kinds: Vec<&str> = all.iter().map(|record| record.action.as_str()).collect();
        assert_eq!(kinds, ["create_key", "publish_version", "start_run", "create_source", "create_tenant"]);

        let mut paged = Vec::new();
        let mut query = AuditQuery { limit: 2, ..AuditQuery::default() };
        loop {
            let page = world.store.audit(&grant, &query).await.unwrap();
            assert!(page.records.len() <= 2);
            query.after = page.records.last().map(|record| record.id);
            paged.extend(page.records);
            if !page.has_more {
                break;
            }
        }
        assert_eq!(paged, all);
        let newer = AuditQuery { before: Some(all[3].id), limit: 2, ..AuditQuery::default() };
        let newer = world.store.audit(&grant, &newer).await.unwrap();
        assert_eq!((newer.records.as_slice(), newer.has_more), (&all[1..3], true), "the nearest, newest first");

        let between = AuditQuery { after: Some(all[0].id), before: Some(all[4].id), limit: 2, ..AuditQuery::default() };
        let between = world.store.audit(&grant, &between).await.unwrap();
        assert_eq!((between.records.as_slice(), between.has_more), (&all[1..3], true));

        let kinds = |query| {
            let (store, acme) = (&world.store, &acme);
            async move { trail(store, acme, query).await.iter().map(|record| record.action.clone()).collect::<Vec<_>>() }
        };
        let named = |name: &str| EventType::named(name).unwrap();
        let types = vec![named("api_key.created"), named("source.created")];
        assert_eq!(kinds(AuditQuery { types, ..AuditQuery::default() }).await, ["create_key", "create_source"]);
        let since = Some(all[0].at);
        assert_eq!(kinds(AuditQuery { from: since, ..AuditQuery::default() }).await, ["create_key"]);
        assert_eq!(kinds(AuditQuery { until: since, ..AuditQuery::default() }).await.len(), 4);
        let actors = vec![acme.admin.key().unwrap().to_string()];
        assert_eq!(kinds(AuditQuery { actors, ..AuditQuery::default() }).await, ["create_key", "start_run", "create_source"]);
        assert_eq!(kinds(AuditQuery { subjects: vec![key.to_string()], ..AuditQuery::default() }).await, ["create_key"]);
        let project = "proj_0190d1f2a3b47c5d8e9f001122334455".parse().unwrap();
        assert_eq!(kinds(AuditQuery { projects: vec![project], ..AuditQuery::default() }).await, [] as [&str; 0]);

        // What names are in it: none that anybody chose.
        let told = format!("{all:?}");
        assert!(!told.contains("acme") && !told.contains("\"code\""), "{told}");
    }

    async fn a_deleted_tenants_administration_is_kept_and_whole(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        world.learn(&acme, 1).await;
        let grant = world.operator.grant(ManageTenant { tenant: acme.id() }).unwrap();
        world.store.delete_tenant(&grant).await.unwrap();
        world.store.create_tenant(&world.operator.grant(CreateTenant).unwrap(), "acme".parse().unwrap(), Plan::Shared).await.unwrap();
        let read = world.operator.grant(ReadOperatorAudit).unwrap();
        let found = world.store.verify_operator_audit(&read).await.unwrap();
        assert!(found.iter().all(|report| report.broken.is_none()), "{found:?}");
        let of_acme: Vec<_> = found.iter().filter(|report| report.tenant == Some(acme.id())).map(|report| report.kind).collect();
        assert_eq!(of_acme, [ChainKind::Administration]);
        assert_error!(world.store.verify_audit(&acme.may(ReadAudit { tenant: acme.id() })).await, StoreError::NotFound { .. });
    }
}

/// Takes back the schema's step that made chains, as if it had never been applied.
async fn undo_chains(world: &World, tenant: &Tenant) {
    let hex = tenant.id().hex();
    if matches!(world.backend, Backend::Sqlite) {
        run_in_file(world, "control.db", &undoing("", "operator_audit", true)).await;
        return run_in_file(world, &format!("tenants/{hex}.db"), &undoing("", "audit", true)).await;
    }
    let database = world.backend.test_database();
    database.sql(&undoing("atelier.", "operator_audit", false));
    database.sql(&undoing("atelier_tenants.", "audit", false));
    match &world.backend {
        Backend::PostgresSchema(_) => drop(database.sql(&undoing(&format!("tenant_{hex}."), "audit", false))),
        Backend::PostgresDatabase(_) => {
            let own = std::mem::ManuallyDrop::new(TestDatabase::named(format!("atelier_{hex}")));
            own.sql(&undoing("atelier_tenants.", "audit", false));
        }
        _ => {}
    }
}

fn undoing(schema: &str, table: &str, has_triggers: bool) -> String {
    let is_control = table == "operator_audit";
    let mut statements = Vec::new();
    if has_triggers {
        statements.extend(["changes", "vanishes"].map(|never| format!("DROP TRIGGER {table}_never_{never}")));
    }
    let indexes: &[&str] = if is_control { &["ids", "chains", "in_order", "by_time"] } else { &["ids", "by_time"] };
    statements.extend(indexes.iter().map(|index| format!("DROP INDEX {schema}{table}_{index}")));
    let columns = ["id", "actor_key", "actor_owner", "project_id", "hash"].into_iter();
    let columns = columns.chain(is_control.then_some("chain_sequence"));
    statements.extend(columns.map(|column| format!("ALTER TABLE {schema}{table} DROP COLUMN {column}")));
    statements.extend(is_control.then(|| format!("DROP TABLE {schema}audit_heads")));
    statements.push(format!("DELETE FROM {schema}schema_history WHERE version = 22"));
    statements.join("; ")
}

/// The tenant's events of this type, newest first, once there are so many.
async fn noted(world: &World, tenant: &Tenant, name: &str, count: usize) -> Vec<AuditRecord> {
    let started = Instant::now();
    loop {
        let types = vec![EventType::named(name).unwrap()];
        let found = trail(&world.store, tenant, AuditQuery { types, ..AuditQuery::default() }).await;
        if found.len() >= count {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "{} of {count} events of type {name}", found.len());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_on_one_database_keep_one_chain() {
    let world = World::open(Backend::postgres()).await;
    let acme = Arc::new(world.tenant("acme", Plan::Tuned).await);
    let (second, _folder) = world.another_process().await;
    let tasks: Vec<_> = (0..20)
        .map(|at| {
            let store = if at % 2 == 0 { world.store.clone() } else { second.clone() };
            let acme = Arc::clone(&acme);
            tokio::spawn(async move {
                let grant = acme.may(ManageKeys { tenant: acme.id() });
                store.create_key(&grant, new_key(&grant, Role::Member)).await.unwrap();
                store
                    .record_export(&acme.may(ReadSources { tenant: acme.id() }), atelier_domain::VersionNumber::FIRST)
                    .await
                    .unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    for store in [&world.store, &second] {
        let found = reports(store, &acme).await;
        assert_eq!(
            found.iter().map(|report| (report.events, report.broken)).collect::<Vec<_>>(),
            [(21, None), (20, None)]
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_pepper_makes_no_chain_of_ours() {
    let world = World::open(Backend::postgres()).await;
    let acme = world.tenant("acme", Plan::Tuned).await;
    // Whoever has the database and not the secret cannot write what passes for ours.
    let folder = world.another_folder();
    std::fs::write(folder.path().join("data/pepper"), [9; 32]).unwrap();
    let second = open_store(&world.backend, &folder, &world.clock).await.unwrap();
    let grant = acme.may(ManageKeys { tenant: acme.id() });
    second.create_key(&grant, new_key(&grant, Role::Member)).await.unwrap();
    let (kind, found) = broken(&world.store, &acme).await.unwrap();
    assert_eq!((kind, found.sequence, found.fault), (ChainKind::Administration, 2, Fault::Altered));
}
