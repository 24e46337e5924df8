//! The data folder: who may open it, and what is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use atelier_access::Denied;
use atelier_domain::Plan;
use atelier_store::StoreError;

use crate::world::{Backend, World, assert_error, on_each_database, open_store};

on_each_database! {
    async fn a_second_server_is_told_who_holds_the_folder(world: World) {
        match open_store(&world.backend, &world.folder, &world.clock).await {
            Err(StoreError::FolderLocked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("expected a locked folder, got {:?}", other.map(|_| ())),
        }
        world.reopen().await;
    }

    async fn the_folder_and_its_secrets_are_for_the_servers_user_only(world: World) {
        let data = world.folder.path().join("data");
        let mode = |path: &str| fs::metadata(data.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("."), mode("pepper"), mode("lock"), mode("root-key")), (0o700, 0o600, 0o600, 0o600));
        world.tenant("acme", Plan::Tuned).await;
        let databases = [data.clone(), data.join("tenants")].map(|folder| fs::read_dir(folder).unwrap());
        for file in databases.into_iter().flatten().map(|entry| entry.unwrap().path()) {
            if file.to_string_lossy().contains(".db") {
                assert_eq!(mode(file.to_str().unwrap()), 0o600, "{}", file.display());
            }
        }
    }

    async fn a_folder_without_its_pepper_is_refused(world: World) {
        let World { store, clock, folder, backend, .. } = world;
        store.close().await;
        drop(store);
        fs::remove_file(folder.path().join("data/pepper")).unwrap();
        assert_error!(open_store(&backend, &folder, &clock).await, StoreError::Corrupt { .. });
    }

    async fn a_closed_store_says_so(world: World) {
        let tenant = world.tenant("acme", Plan::Shared).await;
        world.store.close().await;
        assert_error!(world.store.check().await, StoreError::ShuttingDown);
        assert_error!(world.store.authenticate("nonsense").await, StoreError::Denied(Denied::NotAuthenticated));
        let grant = tenant.may(atelier_access::right::CompleteAs { tenant: tenant.id() });
        assert_error!(world.store.resolve(&grant, &atelier_domain::ModelName::Base).await, StoreError::ShuttingDown);
    }

    async fn what_was_written_is_there_after_a_reopen(world: World) {
        let tenant = world.tenant("acme", Plan::Tuned).await;
        let version = world.learn(&tenant, 1).await;
        let world = world.reopen().await;
        world.store.check().await.unwrap();
        assert!(world.store.bootstrap_operator_key().await.unwrap().is_none());
        assert!(world.store.authenticate(&world.operator_key).await.unwrap().is_operator());
        assert_eq!(world.store.authenticate(&tenant.key.reveal()).await.unwrap(), tenant.admin);
        assert_eq!(world.versions(&tenant).await, [version]);
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let World { store, clock, folder, backend, .. } = World::open(Backend::Sqlite).await;
    store.close().await;
    drop(store);
    for rest in ["-wal", "-shm"] {
        let _ = fs::remove_file(folder.path().join(format!("data/control.db{rest}")));
    }
    fs::write(folder.path().join("data/control.db"), vec![7; 8_192]).unwrap();
    assert_error!(open_store(&backend, &folder, &clock).await, StoreError::Damaged { .. });
}
