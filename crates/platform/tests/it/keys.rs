//! Keys: what they lose, they lose also for what is open under them.

use std::time::Duration;

use atelier_access::{Caller, KeyOwner};
use atelier_domain::{KeyId, PersonRole, Plan, ProjectId, Role, Scope, Scopes};
use atelier_platform::{
    ChangeKey, CompletionEvent, CompletionStream, ErrorKind, Invite, KeyQuery, MakeKey, PlatformError, TenantChange,
};

use crate::support::{World, greedy, kind};

fn make(role: Role) -> MakeKey {
    MakeKey { name: None, role, scopes: Scopes::ALL, project: None, owner: None, lifetime: None }
}

async fn key(world: &World, admin: &Caller, make: MakeKey) -> (KeyId, Caller) {
    let made = world.platform.create_key(admin, make).await.unwrap();
    (made.summary.id, world.platform.authenticate(&made.key.reveal()).await.unwrap())
}

/// A stream with more to say than is read of it: it stays open until somebody ends it.
async fn open(world: &World, caller: &Caller) -> CompletionStream {
    let mut request = greedy("atelier", "def ", 400);
    request.n = 8;
    request.temperature = 1.0;
    let mut stream = world.platform.complete(caller, request).await.unwrap();
    assert!(matches!(stream.next().await, Some(CompletionEvent::Text { .. })));
    stream
}

async fn ends_as_cut(stream: CompletionStream, why: &str) {
    let ended = ending(stream, why).await;
    assert!(matches!(ended, PlatformError::KeyEnded), "{why}: {ended}");
}

async fn ending(mut stream: CompletionStream, why: &str) -> PlatformError {
    // What still comes before the cut is noticed is no more than the second that the promise allows.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let Some(CompletionEvent::Failed(error)) = stream.next().await else { panic!("{why}: the stream goes on") };
    assert!(stream.next().await.is_none());
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_tenant_streams_and_asks_no_more_until_it_is_resumed() {
    let world = World::new(0).await;
    let (acme, globex) = (world.tenant("acme", Plan::Shared).await, world.tenant("globex", Plan::Shared).await);
    let (stream, mut spared) = (open(&world, &acme).await, open(&world, &globex).await);
    let suspended = |is_suspended| TenantChange { is_suspended: Some(is_suspended), ..TenantChange::default() };
    let changed = world.platform.update_tenant(&world.operator, "acme", suspended(true)).await.unwrap();
    assert!(changed.suspended_at.is_some());
    assert!(matches!(ending(stream, "suspended").await, PlatformError::Suspended));
    assert!(matches!(spared.next().await, Some(CompletionEvent::Text { .. })), "another's stream goes on");
    assert_eq!(kind(world.platform.renew(&acme).await), Some(ErrorKind::Forbidden { code: "organization_suspended" }));

    world.platform.update_tenant(&world.operator, "acme", suspended(false)).await.unwrap();
    let back = world.platform.renew(&acme).await.unwrap();
    assert_eq!(back, acme);
    drop((spared, open(&world, &back).await));
    world.platform.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_key_loses_ends_its_streams_and_no_others() {
    let world = World::new(0).await;
    let admin = world.tenant("acme", Plan::Shared).await;
    let (spared, spared_caller) = key(&world, &admin, make(Role::Member)).await;
    let mut spared_stream = open(&world, &spared_caller).await;

    let (revoked, caller) = key(&world, &admin, make(Role::Member)).await;
    let stream = open(&world, &caller).await;
    world.platform.revoke_key(&admin, revoked).await.unwrap();
    ends_as_cut(stream, "revoked").await;
    assert_eq!(kind(world.platform.renew(&caller).await), Some(ErrorKind::NotAuthenticated));

    let (demoted, caller) = key(&world, &admin, make(Role::Member)).await;
    let stream = open(&world, &caller).await;
    let change = ChangeKey { role: Some(Role::Reader), ..ChangeKey::default() };
    world.platform.update_key(&admin, demoted, change).await.unwrap();
    ends_as_cut(stream, "a reader completes nothing").await;

    let (narrowed, caller) = key(&world, &admin, make(Role::Service)).await;
    let stream = open(&world, &caller).await;
    let change = ChangeKey { scopes: Some(Scopes::of(&[Scope::Read])), ..ChangeKey::default() };
    world.platform.update_key(&admin, narrowed, change).await.unwrap();
    ends_as_cut(stream, "the scope is gone").await;

    let lifetime = Some(Duration::from_secs(1));
    let (_, caller) = key(&world, &admin, MakeKey { lifetime, ..make(Role::Member) }).await;
    let stream = open(&world, &caller).await;
    ends_as_cut(stream, "past its time").await;

    let rename = ChangeKey { name: Some("laptop".to_owned()), ..ChangeKey::default() };
    world.platform.update_key(&admin, spared, rename).await.unwrap();
    assert!(matches!(spared_stream.next().await, Some(CompletionEvent::Text { .. })), "a name takes nothing away");
    world.platform.delete_tenant(&world.operator, "acme").await.unwrap();
    ends_as_cut(spared_stream, "the tenant is gone").await;
    world.platform.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_stream_is_settled_with_what_was_generated() {
    let world = World::new(0).await;
    let admin = world.tenant("acme", Plan::Shared).await;
    let (id, caller) = key(&world, &admin, make(Role::Member)).await;
    let stream = open(&world, &caller).await;
    world.platform.revoke_key(&admin, id).await.unwrap();
    ends_as_cut(stream, "revoked").await;
    // The last event comes after the settlement.
    let (usage, requests) = world.usage(&admin).await;
    assert_eq!(requests, 1);
    assert!(usage.completion_tokens > 0 && usage.prompt_tokens > 0, "{usage:?}");
    world.platform.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_managed_by_who_may() {
    let world = World::new(0).await;
    let (platform, admin) = (&world.platform, world.tenant("acme", Plan::Shared).await);
    let other = world.tenant("globex", Plan::Shared).await;
    let hidden = Some(ErrorKind::NotFound { code: "not_found" });
    let forbidden = |code| Some(ErrorKind::Forbidden { code });
    let (role_lacks, scope_lacks) = (forbidden("insufficient_role"), forbidden("insufficient_scope"));
    let exceeded = Some(ErrorKind::InvalidRequest { param: Some("scopes"), code: Some("rights_exceeded") });

    for role in [Role::Member, Role::Service, Role::Reader] {
        let (id, caller) = key(&world, &admin, make(role)).await;
        assert_eq!(kind(platform.create_key(&caller, make(Role::Member)).await), role_lacks, "{role}");
        assert_eq!(kind(platform.list_keys(&caller, KeyQuery::default()).await), role_lacks, "{role}");
        assert_eq!(kind(platform.revoke_key(&caller, id).await), role_lacks, "{role}");
        assert_eq!(kind(platform.revoke_key(&other, id).await), hidden, "{role}");
        assert_eq!(kind(platform.get_key(&other, id).await), hidden, "{role}");
        let runs = kind(platform.list_runs(&caller).await);
        assert_eq!(runs, None, "everybody of a tenant sees its runs");
        let completes = platform.complete(&caller, greedy("atelier", "x", 1)).await;
        assert_eq!(kind(completes), if role == Role::Reader { role_lacks } else { None }, "{role}");
    }
    assert_eq!(kind(platform.create_key(&admin, make(Role::Operator)).await), exceeded);
    let scopes = Scopes::of(&[Scope::Manage]);
    let (own, manager) = key(&world, &admin, MakeKey { scopes, ..make(Role::Admin) }).await;
    assert_eq!(kind(platform.create_key(&manager, make(Role::Reader)).await), exceeded);
    let widen = ChangeKey { scopes: Some(Scopes::ALL), ..ChangeKey::default() };
    assert_eq!(kind(platform.update_key(&manager, own, widen).await), exceeded);
    assert_eq!(kind(platform.rotate_key(&manager, "acme").await), scope_lacks);
    assert_eq!(kind(platform.complete(&manager, greedy("atelier", "x", 1)).await), scope_lacks);
    assert_eq!(kind(platform.create_key(&other, MakeKey { scopes, ..make(Role::Operator) }).await), exceeded);
    let project = Some(ProjectId::default_of(admin.tenant().unwrap()));
    let admin_in_project = MakeKey { project, ..make(Role::Admin) };
    assert!(matches!(
        kind(platform.create_key(&admin, admin_in_project).await),
        Some(ErrorKind::InvalidRequest { param: Some("role"), .. })
    ));
    let elsewhere = MakeKey { project, ..make(Role::Member) };
    assert_eq!(kind(platform.create_key(&other, elsewhere).await), hidden);
    assert_eq!(kind(platform.create_key(&manager, MakeKey { scopes, ..make(Role::Admin) }).await), None);
    for name in ["a\nb", "\u{202e}nimda", "\u{200b}"] {
        let refused =
            kind(platform.create_key(&admin, MakeKey { name: Some(name.into()), ..make(Role::Member) }).await);
        let expected = Some(ErrorKind::InvalidRequest { param: Some("name"), code: Some("invalid_value") });
        assert_eq!(refused, expected, "{name:?}");
    }
    // To let a key live on takes what it takes to hand it out; to end it sooner does not.
    let lives = |seconds| ChangeKey { lifetime: Some(Duration::from_secs(seconds)), ..ChangeKey::default() };
    let brief = MakeKey { lifetime: Some(Duration::from_secs(600)), ..make(Role::Member) };
    let (whole, _) = key(&world, &admin, brief).await;
    assert_eq!(kind(platform.update_key(&manager, whole, lives(3_600)).await), exceeded);
    assert_eq!(kind(platform.update_key(&manager, whole, lives(60)).await), None);
    assert_eq!(kind(platform.update_key(&admin, whole, lives(3_600)).await), None);
    world.platform.shutdown().await;
}

/// Whoever administers a tenant and is removed leaves no key behind that does so for him.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_keys_that_a_person_makes_go_with_that_person() {
    let world = World::new(0).await;
    let (platform, admin) = (&world.platform, world.tenant("acme", Plan::Shared).await);
    let mut people = Vec::new();
    for email in ["jo@example.com", "al@example.com"] {
        let invite = Invite { email: email.to_owned(), role: PersonRole::Owner, projects: None };
        let secret = platform.create_invite(&admin, invite).await.unwrap().secret.reveal();
        let invited = platform.authenticate(&secret).await.unwrap();
        let joined = platform.accept_invite(&invited, "Jo").await.unwrap();
        people.push((joined.user.id, platform.authenticate(&joined.key.key.reveal()).await.unwrap()));
    }
    let (jo, caller) = &people[0];
    let (_, made) = key(&world, caller, make(Role::Admin)).await;
    let (raised, _) = key(&world, caller, make(Role::Reader)).await;
    let raise = ChangeKey { role: Some(Role::Admin), ..ChangeKey::default() };
    let raised = platform.update_key(caller, raised, raise).await.unwrap();
    assert_eq!((made.owner(), raised.owner), (Some(KeyOwner::User(*jo)), Some(KeyOwner::User(*jo))));
    let (_, of_all) = key(&world, caller, make(Role::Service)).await;
    platform.delete_user(&admin, *jo).await.unwrap();
    assert_eq!(kind(platform.renew(&made).await), Some(ErrorKind::NotAuthenticated));
    assert!(platform.get_key(&admin, raised.id).await.unwrap().revoked_at.is_some());
    assert_eq!(kind(platform.renew(&of_all).await), None, "what belongs to the tenant stays");
    world.platform.shutdown().await;
}
