//! Keys: who is let in.

use atelier_access::right::{ManageKeys, ReadOperatorAudit};
use atelier_access::{ApiKey, Denied, KeyKind};
use atelier_domain::{KeyId, Plan, Role};
use atelier_store::StoreError;

use crate::world::{START, World, assert_error, on_each_database};

macro_rules! assert_turned_away {
    ($world:expr, $text:expr) => {
        assert_error!($world.store.authenticate($text).await, StoreError::Denied(Denied::NotAuthenticated))
    };
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
        let (record, key) = world.store.create_key(&grant, Role::Member).await.unwrap();
        world.store.authenticate(&key.reveal()).await.unwrap();
        world.store.revoke_key(&grant, record.id).await.unwrap();
        assert_turned_away!(world, &key.reveal());
        assert_error!(world.store.revoke_key(&grant, record.id).await, StoreError::NotFound { what: "key" });
        world.store.authenticate(&tenant.key.reveal()).await.unwrap();
    }

    async fn rotation_replaces_admin_keys_and_spares_members(world: World) {
        let tenant = world.tenant("acme", Plan::Shared).await;
        let grant = tenant.may(ManageKeys { tenant: tenant.id() });
        let (_, member) = world.store.create_key(&grant, Role::Member).await.unwrap();
        world.store.authenticate(&tenant.key.reveal()).await.unwrap();
        let fresh = world.store.rotate_key(&grant).await.unwrap();
        assert_turned_away!(world, &tenant.key.reveal());
        for key in [fresh, member] {
            assert_eq!(world.store.authenticate(&key.reveal()).await.unwrap().tenant(), Some(tenant.id()));
        }
        let roles: Vec<_> = world.store.keys(&grant).await.unwrap().iter().map(|key| (key.role, key.revoked_at.is_some())).collect();
        assert_eq!(roles.iter().filter(|role| **role == (Role::Admin, true)).count(), 1, "{roles:?}");
        assert_eq!(roles.len(), 3);
    }

    async fn a_tenants_admin_makes_no_operator(world: World) {
        let tenant = world.tenant("acme", Plan::Shared).await;
        let grant = tenant.may(ManageKeys { tenant: tenant.id() });
        assert_error!(world.store.create_key(&grant, Role::Operator).await, StoreError::Denied(Denied::Hidden));
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
        let last_use = world.store.keys(&grant).await.unwrap()[0].last_used_at;
        assert_eq!(last_use, Some(START), "the first use is noted, one ten seconds later is not");
        world.advance(60);
        world.store.authenticate(&tenant.key.reveal()).await.unwrap();
        drop(crate::usage::reserve(&world, &tenant).await);
        assert_eq!(world.store.keys(&grant).await.unwrap()[0].last_used_at, Some(world.store.now()));
    }

    async fn changes_of_keys_are_on_record(world: World) {
        let tenant = world.tenant("acme", Plan::Shared).await;
        let grant = tenant.may(ManageKeys { tenant: tenant.id() });
        let (record, key) = world.store.create_key(&grant, Role::Member).await.unwrap();
        world.store.revoke_key(&grant, record.id).await.unwrap();
        world.store.rotate_key(&grant).await.unwrap();
        let trail = world.store.operator_audit(&world.operator.grant(ReadOperatorAudit).unwrap(), 0, 100).await.unwrap();
        let actions: Vec<_> = trail.iter().map(|record| record.action.as_str()).collect();
        assert_eq!(actions, ["bootstrap", "create_tenant", "create_key", "revoke_key", "rotate_key"]);
        assert_eq!(trail[2].actor, tenant.admin.to_string());
        let secret = &key.reveal()[23..60];
        assert!(!format!("{trail:?}").contains(secret));
        assert!(trail[3].subject.parse::<KeyId>().is_ok());
    }
}
