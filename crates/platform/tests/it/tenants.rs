//! Who may do what: the operator's work, and the walls between tenants.

use atelier_access::Caller;
use atelier_domain::Plan;
use atelier_platform::ErrorKind;

use crate::support::{World, greedy, kind, to_plan};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_come_move_and_go() {
    let world = World::new(0).await;
    let platform = &world.platform;
    let created = platform.create_tenant(&world.operator, "acme", Plan::Shared).await.unwrap();
    let old_key = created.key.key.reveal();
    let caller = platform.authenticate(&old_key).await.unwrap();
    let taken = platform.create_tenant(&world.operator, "acme", Plan::Tuned).await;
    assert_eq!(kind(taken), Some(ErrorKind::Conflict { code: "name_taken" }));
    let bad = platform.create_tenant(&world.operator, "Not A Slug", Plan::Tuned).await;
    assert_eq!(kind(bad), Some(ErrorKind::InvalidRequest { param: Some("name"), code: Some("invalid_value") }));

    assert_eq!(platform.update_tenant(&world.operator, "acme", to_plan(Plan::Tuned)).await.unwrap().plan, Plan::Tuned);
    let by_id = platform.get_tenant(&caller, &created.tenant.id.to_string()).await.unwrap();
    assert_eq!((by_id.name.as_str(), by_id.plan), ("acme", Plan::Tuned));

    let new_key = platform.rotate_key(&caller, "acme").await.unwrap().key.reveal();
    assert_eq!(kind(platform.authenticate(&old_key).await), Some(ErrorKind::NotAuthenticated));
    let caller = platform.authenticate(&new_key).await.unwrap();

    platform.delete_tenant(&world.operator, "acme").await.unwrap();
    assert_eq!(kind(platform.authenticate(&new_key).await), Some(ErrorKind::NotAuthenticated));
    assert!(platform.complete(&caller, greedy("atelier", "x", 1)).await.is_err());
    assert!(platform.list_tenants(&world.operator).await.unwrap().is_empty());
    world.platform.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn walls() {
    let world = World::new(0).await;
    let platform = &world.platform;
    let acme = world.tenant("acme", Plan::Tuned).await;
    world.tenant("globex", Plan::Tuned).await;
    let forbidden = Some(ErrorKind::Forbidden { code: "insufficient_role" });
    let no_organization = Some(ErrorKind::NotFound { code: "organization_not_found" });
    let unnamed = Some(ErrorKind::InvalidRequest { param: None, code: Some("organization_required") });

    assert_eq!(kind(platform.acting_for(&acme, "acme").await), None);
    assert_eq!(kind(platform.acting_for(&acme, "globex").await), no_organization);
    assert_eq!(kind(platform.acting_for(&acme, "nobody").await), no_organization, "the same as one that exists");
    assert_eq!(kind(platform.get_tenant(&acme, "globex").await), no_organization);
    assert_eq!(kind(platform.list_tenants(&acme).await), forbidden);
    assert_eq!(kind(platform.create_tenant(&acme, "mine", Plan::Tuned).await), forbidden);
    assert_eq!(kind(platform.update_tenant(&acme, "acme", to_plan(Plan::Shared)).await), forbidden);
    assert_eq!(kind(platform.delete_tenant(&acme, "acme").await), forbidden);
    assert_eq!(kind(platform.list_models(&Caller::anonymous()).await), Some(ErrorKind::NotAuthenticated));
    assert_eq!(kind(platform.authenticate("atl_t_nonsense").await), Some(ErrorKind::NotAuthenticated));

    // An operator sees nothing of a tenant's without saying for whom.
    assert_eq!(kind(platform.complete(&world.operator, greedy("atelier", "x", 1)).await), unnamed);
    assert_eq!(kind(platform.list_models(&world.operator).await), unnamed);
    let acting = platform.acting_for(&world.operator, "acme").await.unwrap();
    assert_eq!(kind(platform.list_models(&acting).await), None);
    assert_eq!(kind(platform.acting_for(&world.operator, "nobody").await), no_organization);
    world.platform.shutdown().await;
}
