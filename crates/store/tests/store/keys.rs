//! Keys: who is let in.

use std::time::Duration;

use atelier_access::right::{ManageKeys, ReadOperatorAudit, ReadUsage};
use atelier_access::{ApiKey, Denied, KeyKind};
use atelier_domain::limits::KEYS_PER_TENANT_MAX;
use atelier_domain::{KeyId, Plan, Role, Scope, Scopes};
use atelier_store::{AuditQuery, KeyChange, KeyQuery, KeySummary, NewKey, StoreError};

use crate::world::{Backend, START, World, assert_error, assert_forgotten_within_a_second, new_key, on_each_database};

macro_rules! assert_turned_away {
    ($world:expr, $text:expr) => {
        assert_error!($world.store.authenticate($text).await, StoreError::Denied(Denied::NotAuthenticated))
    };
}

/// The key but for its use, which is written down when there is time for it.
fn unused(key: KeySummary) -> KeySummary {
    KeySummary { last_used_at: None, ..key }
}

on_each_database! {
    async fn only_living_keys_are_let_in(world: World) {
        let tenant = world.tenant("acme", Plan::Shared).await;
        let text = tenant.key.reveal();
        assert_eq!(world.store.authenticate(&text).await.unwrap().tenant(), Some(tenant.id()));
        for text in ["", "sk-123", &text[..70], &ApiKey::generate(KeyKind::Tenant, [9; 43]).reveal(), &format!("{text}x")] {
            assert_turned_away!(world, text);
        }
        // The public id of a living key with another secret.
        let other = world.tenant("globex", Plan::Shared).await.key;
        let spliced = format!("{}{}", &text[..23], &other.reveal()[23..]);
        assert_turned_away!(world, &spliced);
    }

    async fn a_revoked_key_is_worthless_at_once_although_it_was_just_used(world: World) {
        let tenant = world.tenant("acme", Plan::Shared).await;
        let grant = tenant.may(ManageKeys { tenant: tenant.id() });
        let made = world.key(&tenant, Role::Member).await;
        let member = world.store.authenticate(&made.key.reveal()).await.unwrap();
        assert_eq!(world.store.renew(&member).await.unwrap(), member);
        world.store.revoke_key(&grant, made.summary.id).await.unwrap();
        assert_turned_away!(world, &made.key.reveal());
        assert_error!(world.store.renew(&member).await, StoreError::Denied(Denied::NotAuthenticated));
        assert_error!(world.store.revoke_key(&grant, made.summary.id).await, StoreError::NotFound { what: "key" });
        world.store.authenticate(&tenant.key.reveal()).await.unwrap();
    }

    async fn rotation_replaces_admin_keys_and_spares_members(world: World) {
        let tenant = world.tenant("acme", Plan::Shared).await;
        let grant = tenant.may(ManageKeys { tenant: tenant.id() });
        let member = world.key(&tenant, Role::Member).await.key;
        world.store.authenticate(&tenant.key.reveal()).await.unwrap();
        let fresh = world.store.rotate_key(&grant).await.unwrap().key;
        assert_turned_away!(world, &tenant.key.reveal());
        for key in [fresh, member] {
            assert_eq!(world.store.authenticate(&key.reveal()).await.unwrap().tenant(), Some(tenant.id()));
        }
        let roles: Vec<_> = world.store.keys(&grant, KeyQuery::default()).await.unwrap().iter().map(|key| (key.role, key.revoked_at.is_some())).collect();
        assert_eq!(roles.iter().filter(|role| **role == (Role::Admin, true)).count(), 1, "{roles:?}");
        assert_eq!(roles.len(), 3);
    }

    async fn a_tenants_admin_makes_no_operator(world: World) {
        let tenant = world.tenant("acme", Plan::Shared).await;
        let grant = tenant.may(ManageKeys { tenant: tenant.id() });
        assert_eq!(grant.hand_out(Role::Operator, Scopes::ALL), Err(Denied::Exceeds));
    }

    async fn the_operators_key_is_given_once_and_can_be_replaced(world: World) {
        assert!(world.store.bootstrap_operator_key().await.unwrap().is_none());
        let fresh = world.store.replace_operator_key().await.unwrap();
        assert_turned_away!(world, &world.operator_key);
        assert!(world.store.authenticate(&fresh.reveal()).await.unwrap().is_operator());
    }

    async fn last_use_is_noted_to_the_minute(world: World) {
        let tenant = world.tenant("acme", Plan::Shared).await;
        let grant = tenant.may(ManageKeys { tenant: tenant.id() });
        world.advance(10);
        world.store.authenticate(&tenant.key.reveal()).await.unwrap();
        // The ledger's writer keeps order: once a reservation behind it is written, so is the note.
        drop(crate::usage::reserve(&world, &tenant).await);
        let last_use = world.store.keys(&grant, KeyQuery::default()).await.unwrap()[0].last_used_at;
        assert_eq!(last_use, Some(START), "the first use is noted, one ten seconds later is not");
        world.advance(60);
        world.store.authenticate(&tenant.key.reveal()).await.unwrap();
        drop(crate::usage::reserve(&world, &tenant).await);
        assert_eq!(world.store.keys(&grant, KeyQuery::default()).await.unwrap()[0].last_used_at, Some(world.store.now()));
    }

    async fn changes_of_keys_are_on_record(world: World) {
        let tenant = world.tenant("acme", Plan::Shared).await;
        let grant = tenant.may(ManageKeys { tenant: tenant.id() });
        let made = world.key(&tenant, Role::Member).await;
        world.store.revoke_key(&grant, made.summary.id).await.unwrap();
        world.store.rotate_key(&grant).await.unwrap();
        let query = AuditQuery { limit: 100, ..AuditQuery::default() };
        let read = world.operator.grant(ReadOperatorAudit).unwrap();
        let mut trail = world.store.operator_audit(&read, &query).await.unwrap().records;
        trail.sort_by_key(|record| (record.tenant, record.sequence));
        let actions: Vec<_> = trail.iter().map(|record| record.action.as_str()).collect();
        assert_eq!(actions, ["bootstrap", "create_tenant", "create_key", "revoke_key", "rotate_key"]);
        assert_eq!(trail[2].actor.text, tenant.admin.to_string());
        let secret = &made.key.reveal()[23..60];
        assert!(!format!("{trail:?}").contains(secret));
        assert!(trail[3].subject.parse::<KeyId>().is_ok());
    }

    async fn a_key_ends_by_itself(world: World) {
        let tenant = world.tenant("acme", Plan::Shared).await;
        let grant = tenant.may(ManageKeys { tenant: tenant.id() });
        let new = NewKey { expires_at: Some(world.store.now().plus(Duration::from_secs(60))), ..new_key(&grant, Role::Member) };
        let made = world.store.create_key(&grant, new).await.unwrap();
        let member = world.store.authenticate(&made.key.reveal()).await.unwrap();
        world.advance(59);
        assert_eq!(world.store.renew(&member).await.unwrap(), member);
        world.advance(1);
        assert_turned_away!(world, &made.key.reveal());
        assert_error!(world.store.renew(&member).await, StoreError::Denied(Denied::NotAuthenticated));
        let again = KeyChange { expires_at: Some(world.store.now().plus(Duration::from_secs(60))), ..KeyChange::default() };
        let revived = world.store.update_key(&grant, made.summary.id, again).await;
        assert_error!(revived, StoreError::NotFound { what: "key" });
    }

    async fn a_key_may_what_it_was_made_for(world: World) {
        let tenant = world.tenant("acme", Plan::Shared).await;
        let grant = tenant.may(ManageKeys { tenant: tenant.id() });
        let rights = grant.hand_out(Role::Admin, Scopes::of(&[Scope::Usage])).unwrap();
        let made = world.store.create_key(&grant, NewKey { rights, ..new_key(&grant, Role::Admin) }).await.unwrap();
        assert_eq!((made.summary.role, made.summary.scopes), (Role::Admin, Scopes::of(&[Scope::Usage])));
        let caller = world.store.authenticate(&made.key.reveal()).await.unwrap();
        assert!(caller.grant(ReadUsage { tenant: tenant.id() }).is_ok());
        assert_error!(caller.grant(ManageKeys { tenant: tenant.id() }), Denied::OutOfScope(_));
    }

    async fn a_change_of_a_key_holds_at_once(world: World) {
        let tenant = world.tenant("acme", Plan::Shared).await;
        let grant = tenant.may(ManageKeys { tenant: tenant.id() });
        let made = world.key(&tenant, Role::Admin).await;
        let before = world.store.authenticate(&made.key.reveal()).await.unwrap();
        let rights = grant.hand_out(Role::Reader, Scopes::of(&[Scope::Read, Scope::Usage])).unwrap();
        let ends = world.store.now().plus(Duration::from_secs(60));
        let name = Some("auditor".parse().unwrap());
        let change = KeyChange { name: name.clone(), rights: Some(rights), expires_at: Some(ends), ..KeyChange::default() };
        let changed = world.store.update_key(&grant, made.summary.id, change).await.unwrap();
        assert_eq!(unused(world.store.key(&grant, made.summary.id).await.unwrap()), unused(changed.clone()));
        assert_eq!((&changed.name, changed.expires_at), (&name, Some(ends)));
        assert_eq!((changed.role, changed.scopes.to_string().as_str()), (Role::Reader, "read,usage"));
        let after = world.store.renew(&before).await.unwrap();
        assert_eq!(world.store.authenticate(&made.key.reveal()).await.unwrap(), after);
        assert!(before.grant(ManageKeys { tenant: tenant.id() }).is_ok());
        assert!(after.grant(ManageKeys { tenant: tenant.id() }).is_err());
        world.advance(60);
        assert_turned_away!(world, &made.key.reveal());
        world.store.revoke_key(&grant, made.summary.id).await.unwrap();
        let change = KeyChange { rights: Some(rights), ..KeyChange::default() };
        assert_error!(world.store.update_key(&grant, made.summary.id, change).await, StoreError::NotFound { what: "key" });
    }

    async fn a_key_is_known_by_one_id_everywhere(world: World) {
        let tenant = world.tenant("acme", Plan::Shared).await;
        // Within a millisecond, which is the first key is anybody's guess.
        world.advance(1);
        let grant = tenant.may(ManageKeys { tenant: tenant.id() });
        let made = world.key(&tenant, Role::Member).await;
        let caller = world.store.authenticate(&made.key.reveal()).await.unwrap();
        assert_eq!(caller.key(), Some(made.summary.id));
        let listed = world.store.keys(&grant, KeyQuery { after: tenant.admin.key(), ..KeyQuery::default() }).await.unwrap();
        assert_eq!(listed.into_iter().map(unused).collect::<Vec<_>>(), std::slice::from_ref(&made.summary));
        assert!(made.key.reveal().starts_with(made.summary.redacted.trim_end_matches('…')));
        let readers = KeyQuery { role: Some(Role::Reader), living: true, ..KeyQuery::default() };
        assert!(world.store.keys(&grant, readers).await.unwrap().is_empty());
    }

    async fn a_deleted_tenants_keys_are_not_renewed(world: World) {
        let tenant = world.tenant("acme", Plan::Shared).await;
        let grant = world.operator.grant(atelier_access::right::ManageTenant { tenant: tenant.id() }).unwrap();
        world.store.delete_tenant(&grant).await.unwrap();
        assert_error!(world.store.renew(&tenant.admin).await, StoreError::Denied(Denied::NotAuthenticated));
        assert_turned_away!(world, &tenant.key.reveal());
    }
}

// On one database: a thousand keys take a while.
#[tokio::test]
async fn a_tenant_has_so_many_living_keys_and_no_more() {
    let world = World::open(Backend::Sqlite).await;
    let tenant = world.tenant("acme", Plan::Shared).await;
    let grant = tenant.may(ManageKeys { tenant: tenant.id() });
    let mut last = None;
    // The first came with the tenant.
    for _ in 1..KEYS_PER_TENANT_MAX {
        last = Some(world.store.create_key(&grant, new_key(&grant, Role::Member)).await.unwrap().summary.id);
    }
    let one_more = world.store.create_key(&grant, new_key(&grant, Role::Member)).await;
    assert_error!(one_more, StoreError::TooMany { what: "keys", limit: KEYS_PER_TENANT_MAX });
    world.store.revoke_key(&grant, last.unwrap()).await.unwrap();
    world.store.create_key(&grant, new_key(&grant, Role::Member)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_learns_of_a_revocation_within_a_second() {
    let world = World::open(Backend::postgres()).await;
    let (other, _folder) = world.another_process().await;
    let tenant = world.tenant("acme", Plan::Shared).await;
    let grant = tenant.may(ManageKeys { tenant: tenant.id() });
    let made = world.key(&tenant, Role::Member).await;
    let text = made.key.reveal();
    let caller = other.authenticate(&text).await.unwrap();
    world.store.revoke_key(&grant, made.summary.id).await.unwrap();
    assert_forgotten_within_a_second(&other, &caller).await;
    assert_error!(other.authenticate(&text).await, StoreError::Denied(Denied::NotAuthenticated));
    other.close().await;
}
