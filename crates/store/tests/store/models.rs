//! Models: what a name means, by tenant and plan.

use atelier_access::right::{CompleteAs, ManageTenant, MoveAlias, ReadModels};
use atelier_domain::{Digest, Plan};
use atelier_store::StoreError;

use crate::world::{Tenant, World, adapter_files, assert_error, load_right, on_each_database};

/// What the name resolves to: nothing, the base, or the adapter of this content.
async fn check(world: &World, tenant: &Tenant, name: &str, expected: Result<Option<u8>, ()>) {
    let grant = tenant.may(CompleteAs { tenant: tenant.id() });
    let serving = world.store.resolve(&grant, &name.parse().unwrap()).await;
    match (serving, expected) {
        (Err(StoreError::NotFound { what: "model" }), Err(())) => {}
        (Ok(serving), Ok(content)) => {
            assert_eq!(serving.adapter(), content.map(|content| Digest([content; 32])), "{name}");
            assert_eq!(serving.version().is_some(), content.is_some(), "{name}");
            assert_eq!((serving.model(), serving.tenant()), (name, tenant.id()));
        }
        (serving, expected) => panic!("{name}: expected {expected:?}, got {serving:?}"),
    }
}

async fn names(world: &World, tenant: &Tenant) -> Vec<String> {
    let models = world.store.models(&tenant.may(ReadModels { tenant: tenant.id() })).await.unwrap();
    models.iter().map(|model| model.id.to_string()).collect()
}

on_each_database! {
    async fn a_name_follows_tenant_and_plan(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        let globex = world.tenant("globex", Plan::Tuned).await;
        check(&world, &acme, "atelier", Ok(None)).await;
        world.learn(&acme, 1).await;
        world.learn(&acme, 2).await;
        check(&world, &acme, "atelier", Ok(Some(2))).await;
        check(&world, &acme, "atelier-base", Ok(None)).await;
        check(&world, &acme, "ft:atelier-base:acme:code:1", Ok(Some(1))).await;
        check(&world, &acme, "ft:atelier-base:acme:code:3", Err(())).await;
        check(&world, &acme, "ft:atelier-base:acme:other:1", Err(())).await;
        check(&world, &globex, "atelier", Ok(None)).await;
        check(&world, &globex, "ft:atelier-base:acme:code:1", Err(())).await;
        check(&world, &globex, "ft:atelier-base:globex:code:1", Err(())).await;

        world.store.roll_back(&acme.may(MoveAlias { tenant: acme.id() }), None).await.unwrap();
        check(&world, &acme, "atelier", Ok(Some(1))).await;

        let operator = world.operator.grant(ManageTenant { tenant: acme.id() }).unwrap();
        world.store.set_plan(&operator, Plan::Shared).await.unwrap();
        check(&world, &acme, "atelier", Ok(None)).await;
        check(&world, &acme, "ft:atelier-base:acme:code:1", Err(())).await;
        assert_eq!(names(&world, &acme).await, ["atelier", "atelier-base"]);
        world.store.set_plan(&operator, Plan::Tuned).await.unwrap();
        check(&world, &acme, "atelier", Ok(Some(1))).await;
    }

    async fn a_caller_sees_its_own_models_only(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        let globex = world.tenant("globex", Plan::Tuned).await;
        world.learn(&acme, 1).await;
        assert_eq!(names(&world, &acme).await, ["atelier", "atelier-base", "ft:atelier-base:acme:code:1"]);
        assert_eq!(names(&world, &globex).await, ["atelier", "atelier-base"]);
    }

    async fn case_12_an_adapter_is_read_as_it_was_stored_or_not_at_all(world: World) {
        let acme = world.tenant("acme", Plan::Tuned).await;
        let globex = world.tenant("globex", Plan::Tuned).await;
        world.learn(&acme, 1).await;
        let digest = Digest([1; 32]);
        assert_eq!(world.store.adapter(&load_right(acme.id()), digest).await.unwrap(), adapter_files(1));
        assert_error!(world.store.adapter(&load_right(globex.id()), digest).await, StoreError::NotFound { what: "adapter" });

        // Moved between tenants on the disk, and changed in place.
        let blobs = world.folder.path().join("data/blobs");
        let file = |tenant: &Tenant| blobs.join(tenant.id().hex()).join("adapters").join(digest.to_string());
        std::fs::create_dir_all(file(&globex).parent().unwrap()).unwrap();
        std::fs::copy(file(&acme), file(&globex)).unwrap();
        assert_error!(world.store.adapter(&load_right(globex.id()), digest).await, StoreError::DoesNotOpen { .. });
        let mut bytes = std::fs::read(file(&acme)).unwrap();
        bytes[20] ^= 1;
        std::fs::write(file(&acme), bytes).unwrap();
        assert_error!(world.store.adapter(&load_right(acme.id()), digest).await, StoreError::DoesNotOpen { .. });
    }
}
