//! Projects, people, invites and machines of a tenant: who gets what, who keeps what, and what nobody finds.

use std::time::Duration;

use atelier_access::right::{
    Appoint, CompleteAs, JoinOrganization, ManageKeys, ManageOrganization, ManageTenant, Meter, ReadAudit,
    ReadOrganization, ReadUsage,
};
use atelier_access::{Caller, Denied, Granted, KeyOwner};
use atelier_domain::limits::{INVITE_LIFETIME, PROJECTS_PER_INVITE_MAX, PROJECTS_PER_TENANT_MAX};
use atelier_domain::{Email, ModelName, PersonRole, Plan, ProjectId, ProjectRole, Role, Scopes, TokenCounts, UserId};
use atelier_store::{
    AuditQuery, CreatedInvite, CreatedKey, KeyChange, KeyOrder, KeyQuery, Keyring, NewInvite, NewKey, NewMachineKey,
    NewReservation, NewServiceAccount, OrganizationConflict, Outcome, Page, PageQuery, Person, StoreError, UsageQuery,
    UserRecord,
};

use crate::encryption::places_with;
use crate::world::{Backend, START, Tenant, World, assert_error, new_key, on_each_database};

/// What names people and machines, to be looked for once they are gone.
const MARKER: &str = "find-me-77c1";

fn email(name: &str) -> Email {
    format!("{name}@example.com").parse().unwrap()
}

fn first<I>(limit: usize) -> PageQuery<I> {
    PageQuery { after: None, limit }
}

fn reads(tenant: &Tenant) -> Granted<ReadOrganization> {
    tenant.may(ReadOrganization { tenant: tenant.id() })
}

fn manages(tenant: &Tenant) -> Granted<ManageOrganization> {
    tenant.may(ManageOrganization { tenant: tenant.id() })
}

fn appoints(tenant: &Tenant) -> Granted<Appoint> {
    tenant.may(Appoint { tenant: tenant.id() })
}

fn manages_keys(tenant: &Tenant) -> Granted<ManageKeys> {
    tenant.may(ManageKeys { tenant: tenant.id() })
}

async fn invite(
    world: &World,
    tenant: &Tenant,
    name: &str,
    role: PersonRole,
    projects: Option<Vec<(ProjectId, ProjectRole)>>,
) -> CreatedInvite {
    let new = NewInvite { email: email(name), role, projects };
    world.store.create_invite(&appoints(tenant), new).await.unwrap()
}

/// Somebody who was invited and came: who, and the caller that his own key makes.
async fn person(
    world: &World,
    tenant: &Tenant,
    name: &str,
    role: PersonRole,
    projects: Option<Vec<(ProjectId, ProjectRole)>>,
) -> (UserRecord, Caller) {
    let secret = invite(world, tenant, name, role, projects).await.secret.reveal();
    let invited = world.store.authenticate(&secret).await.unwrap();
    let grant = invited.grant(JoinOrganization { tenant: tenant.id() }).unwrap();
    let joined = world.store.accept_invite(&grant, name.parse().unwrap()).await.unwrap();
    let caller = world.store.authenticate(&joined.key.key.reveal()).await.unwrap();
    (joined.user, caller)
}

async fn project(world: &World, tenant: &Tenant, name: &str) -> ProjectId {
    world.store.create_project(&manages(tenant), name.parse().unwrap()).await.unwrap().id
}

async fn machine_key(world: &World, tenant: &Tenant, project: ProjectId) -> CreatedKey {
    let key = Some(NewMachineKey { expires_at: None });
    let new = NewServiceAccount { project, name: "ci".parse().unwrap(), key };
    world.store.create_service_account(&appoints(tenant), new).await.unwrap().1.unwrap()
}

async fn key_of(
    world: &World,
    tenant: &Tenant,
    role: Role,
    project: Option<ProjectId>,
    owner: Option<UserId>,
) -> Result<CreatedKey, StoreError> {
    let grant = manages_keys(tenant);
    let new = NewKey { project, owner: owner.map(KeyOwner::User), ..new_key(&grant, role) };
    world.store.create_key(&grant, new).await
}

async fn caller(world: &World, key: &CreatedKey) -> Caller {
    world.store.authenticate(&key.key.reveal()).await.unwrap()
}

async fn is_let_in(world: &World, caller: &Caller) -> bool {
    match world.store.renew(caller).await {
        Ok(_) => true,
        Err(StoreError::Denied(Denied::NotAuthenticated)) => false,
        Err(error) => panic!("{error:?}"),
    }
}

async fn actions(world: &World, tenant: &Tenant) -> Vec<String> {
    let query = AuditQuery { limit: 100, ..AuditQuery::default() };
    let mut records = world.store.audit(&tenant.may(ReadAudit { tenant: tenant.id() }), &query).await.unwrap().records;
    records.sort_by_key(|record| record.sequence);
    records.into_iter().map(|record| record.action).collect()
}

/// One settled request under the caller's key.
async fn use_key(world: &World, tenant: &Tenant, caller: &Caller) {
    let tenant = tenant.id();
    let serving = world.store.resolve(&caller.grant(CompleteAs { tenant }).unwrap(), &ModelName::Base).await.unwrap();
    let new = NewReservation { request: world.store.new_request_id(), serving: &serving };
    let reservation = world.store.reserve(&caller.grant(Meter { tenant }).unwrap(), new).await.unwrap();
    let tokens = TokenCounts { input: 10, input_cached: 0, output: 1 };
    world.store.settle(reservation, tokens, Outcome::Finished).await.unwrap();
}

/// Requests by project and person, in no order.
async fn used(
    world: &World,
    caller: &Caller,
    tenant: &Tenant,
    query: UsageQuery,
) -> Vec<(Option<ProjectId>, Option<UserId>, u64)> {
    let grant = caller.grant(ReadUsage { tenant: tenant.id() }).unwrap();
    let page = world.store.usage(&grant, &query).await.unwrap();
    let results = page.buckets.iter().flat_map(|bucket| &bucket.results);
    let mut found: Vec<_> = results.map(|result| (result.project, result.user, result.requests)).collect();
    found.sort_by_key(|(_, _, requests)| *requests);
    found
}

/// A project with an owner, a reader, a machine and a key of its own, and somebody who is invited to the tenant.
async fn furnish(world: &World, tenant: &Tenant) -> (ProjectId, Vec<Caller>) {
    let web = project(world, tenant, "web").await;
    let (_, owner) = person(world, tenant, "jo", PersonRole::Owner, Some(vec![(web, ProjectRole::Owner)])).await;
    let (_, reader) = person(world, tenant, "al", PersonRole::Reader, Some(vec![(web, ProjectRole::Member)])).await;
    invite(world, tenant, "kim", PersonRole::Reader, None).await;
    let machine = caller(world, &machine_key(world, tenant, web).await).await;
    let key = caller(world, &key_of(world, tenant, Role::Member, Some(web), None).await.unwrap()).await;
    (web, vec![tenant.admin.clone(), owner, reader, machine, key])
}

/// Whatever a tenant finds of its people, projects and keys, a line each.
async fn listed(world: &World, tenant: &Tenant, project: ProjectId) -> String {
    let (store, read, keys) = (&world.store, reads(tenant), manages_keys(tenant));
    let mut lines = Vec::new();
    macro_rules! list {
        ($items:expr) => {
            lines.extend($items.iter().map(|item| format!("{item:?}\n")))
        };
    }
    list!(store.users(&read, first(99), &[]).await.unwrap().items);
    list!(store.invites(&read, first(99)).await.unwrap().items);
    list!(store.projects(&read, first(99), true).await.unwrap().items);
    list!(store.project_users(&read, project, first(99)).await.unwrap().items);
    list!(store.service_accounts(&read, project, first(99)).await.unwrap().items);
    list!(store.keys(&keys, KeyQuery::default()).await.unwrap());
    for ring in [Keyring::Project(project), Keyring::Administration] {
        list!(store.held_keys(&keys, ring, first(99), KeyOrder::OldestFirst).await.unwrap().items);
    }
    lines.concat()
}

on_each_database! {
    async fn projects_are_made_named_paged_and_archived(world: World) {
        let acme = world.tenant("acme", Plan::Shared).await;
        let usual = ProjectId::default_of(acme.id());
        assert_eq!(world.store.project(&reads(&acme), usual).await.unwrap().name.as_str(), "Default project");
        let mut made = vec![usual];
        for name in ["one", "two", "three"] {
            world.advance(1);
            made.push(project(&world, &acme, name).await);
        }
        let ids = |page: &Page<atelier_store::ProjectRecord>| page.items.iter().map(|project| project.id).collect::<Vec<_>>();
        let page = world.store.projects(&reads(&acme), first(3), false).await.unwrap();
        assert_eq!((ids(&page), page.has_more), (made[..3].to_vec(), true));
        let next = PageQuery { after: Some(made[2]), limit: 3 };
        let page = world.store.projects(&reads(&acme), next, false).await.unwrap();
        assert_eq!((ids(&page), page.has_more), (vec![made[3]], false));

        let renamed = world.store.rename_project(&manages(&acme), made[1], "uno".parse().unwrap()).await.unwrap();
        assert_eq!(world.store.project(&reads(&acme), made[1]).await.unwrap(), renamed);
        let archived = world.store.archive_project(&manages(&acme), made[1]).await.unwrap();
        assert_eq!((archived.name.as_str(), archived.archived_at), ("uno", Some(world.store.now())));
        assert_eq!(ids(&world.store.projects(&reads(&acme), first(9), false).await.unwrap()), [usual, made[2], made[3]]);
        assert_eq!(ids(&world.store.projects(&reads(&acme), first(9), true).await.unwrap()), made);
        for again in [
            world.store.archive_project(&manages(&acme), made[1]).await,
            world.store.rename_project(&manages(&acme), made[1], "x".parse().unwrap()).await,
        ] {
            assert_error!(again, StoreError::Organization(OrganizationConflict::ProjectArchived));
        }
        assert_error!(world.store.archive_project(&manages(&acme), usual).await, StoreError::Organization(OrganizationConflict::DefaultProject));
        let told = actions(&world, &acme).await;
        assert_eq!(told, ["create_tenant", "create_project", "create_project", "create_project", "update_project", "archive_project"]);
    }

    async fn an_archived_projects_keys_are_worthless_and_no_others(world: World) {
        let acme = world.tenant("acme", Plan::Shared).await;
        let (closing, staying) = (project(&world, &acme, "closing").await, project(&world, &acme, "staying").await);
        let (machine, other) = (machine_key(&world, &acme, closing).await, machine_key(&world, &acme, staying).await);
        let member = key_of(&world, &acme, Role::Member, Some(closing), None).await.unwrap();
        let ended = [caller(&world, &machine).await, caller(&world, &member).await];
        let kept = [caller(&world, &other).await, acme.admin.clone()];
        world.store.archive_project(&manages(&acme), closing).await.unwrap();
        for caller in &ended {
            assert!(!is_let_in(&world, caller).await, "{caller}");
        }
        for caller in &kept {
            assert!(is_let_in(&world, caller).await, "{caller}");
        }
        // Nothing new gets in either.
        let conflict = OrganizationConflict::ProjectArchived;
        assert_error!(key_of(&world, &acme, Role::Member, Some(closing), None).await, StoreError::Organization(OrganizationConflict::ProjectArchived));
        let new = NewServiceAccount { project: closing, name: "ci".parse().unwrap(), key: None };
        let refused = world.store.create_service_account(&appoints(&acme), new).await;
        assert!(matches!(refused, Err(StoreError::Organization(found)) if found == conflict));
        let new = NewInvite { email: email("jo"), role: PersonRole::Reader, projects: Some(vec![(closing, ProjectRole::Member)]) };
        assert_error!(world.store.create_invite(&appoints(&acme), new).await, StoreError::Organization(OrganizationConflict::ProjectArchived));
    }

    async fn who_is_invited_comes_once_and_with_what_was_promised(world: World) {
        let acme = world.tenant("acme", Plan::Shared).await;
        let web = project(&world, &acme, "web").await;
        for (name, role, projects, expected) in [
            ("owner", PersonRole::Owner, None, (Role::Admin, None)),
            ("usual", PersonRole::Reader, None, (Role::Member, Some(ProjectId::default_of(acme.id())))),
            ("web", PersonRole::Reader, Some(vec![(web, ProjectRole::Owner)]), (Role::Member, Some(web))),
            ("reader", PersonRole::Reader, Some(vec![]), (Role::Reader, None)),
        ] {
            world.advance(1);
            let created = invite(&world, &acme, name, role, projects).await;
            let invited = world.store.authenticate(&created.secret.reveal()).await.unwrap();
            assert_eq!((invited.invite(), invited.tenant()), (Some(created.record.id), Some(acme.id())));
            assert!(invited.grant(ReadOrganization { tenant: acme.id() }).is_err() && invited.grant(CompleteAs { tenant: acme.id() }).is_err());
            let grant = invited.grant(JoinOrganization { tenant: acme.id() }).unwrap();
            let joined = world.store.accept_invite(&grant, name.parse().unwrap()).await.unwrap();
            assert_eq!((joined.key.summary.role, joined.key.summary.project), expected, "{name}");
            assert_eq!(joined.key.summary.owner, Some(KeyOwner::User(joined.user.id)));
            assert_eq!((joined.user.email.clone(), joined.user.role), (email(name), role));
            let found = world.store.user(&reads(&acme), joined.user.id).await.unwrap();
            assert_eq!(found, joined.user);
            // Once.
            assert_error!(world.store.accept_invite(&grant, "again".parse().unwrap()).await, StoreError::NotFound { what: "invite" });
            assert_error!(world.store.authenticate(&created.secret.reveal()).await, StoreError::Denied(Denied::NotAuthenticated));
            let listed = world.store.invite(&reads(&acme), created.record.id).await.unwrap();
            assert_eq!(listed.accepted_at, Some(world.store.now()));
            let refused = world.store.delete_invite(&manages(&acme), created.record.id).await;
            assert_error!(refused, StoreError::Organization(OrganizationConflict::InviteAccepted));
        }
        let page = world.store.users(&reads(&acme), first(9), &[email("web"), email("nobody"), email("owner")]).await.unwrap();
        assert_eq!(page.items.iter().map(|user| user.email.clone()).collect::<Vec<_>>(), [email("owner"), email("web")]);
        let members = world.store.project_users(&reads(&acme), web, first(9)).await.unwrap().items;
        assert_eq!(members.iter().map(|member| (member.email.clone(), member.role)).collect::<Vec<_>>(), [(email("web"), ProjectRole::Owner)]);
    }

    async fn an_invite_is_refused_where_it_makes_no_sense(world: World) {
        let (acme, other) = (world.tenant("acme", Plan::Shared).await, world.tenant("other", Plan::Shared).await);
        let (jo, _) = person(&world, &acme, "jo", PersonRole::Owner, None).await;
        let new = |name: &str, projects| NewInvite { email: email(name), role: PersonRole::Reader, projects };
        let send = async |new: NewInvite| world.store.create_invite(&appoints(&acme), new).await;
        assert_error!(send(new("jo", None)).await, StoreError::Organization(OrganizationConflict::UserExists));
        let waiting = send(new("al", None)).await.unwrap();
        assert_error!(send(new("al", None)).await, StoreError::Organization(OrganizationConflict::InviteExists));
        let foreign = ProjectId::default_of(other.id());
        assert_error!(send(new("bo", Some(vec![(foreign, ProjectRole::Member)]))).await, StoreError::NotFound { what: "project" });
        let many = vec![(ProjectId::default_of(acme.id()), ProjectRole::Member); PROJECTS_PER_INVITE_MAX + 1];
        assert_error!(send(new("bo", Some(many))).await, StoreError::TooMany { .. });
        // Another tenant's people are nobody's business: the same person may be invited there.
        person(&world, &other, "jo", PersonRole::Reader, None).await;

        // Past its time it is worthless, and makes room for another.
        let secret = waiting.secret.reveal();
        let invited = world.store.authenticate(&secret).await.unwrap();
        let grant = invited.grant(JoinOrganization { tenant: acme.id() }).unwrap();
        world.advance(INVITE_LIFETIME.as_secs());
        assert_error!(world.store.authenticate(&secret).await, StoreError::Denied(Denied::NotAuthenticated));
        assert_error!(world.store.accept_invite(&grant, "al".parse().unwrap()).await, StoreError::NotFound { what: "invite" });
        let anew = send(new("al", None)).await.unwrap();
        assert_error!(world.store.invite(&reads(&acme), waiting.record.id).await, StoreError::NotFound { .. });
        world.store.delete_invite(&manages(&acme), anew.record.id).await.unwrap();
        assert_error!(world.store.authenticate(&anew.secret.reveal()).await, StoreError::Denied(Denied::NotAuthenticated));
        assert_error!(world.store.delete_invite(&manages(&acme), anew.record.id).await, StoreError::NotFound { .. });
        // A grant that was given before is not one for another invite of the tenant.
        send(new("cy", None)).await.unwrap();
        assert_error!(world.store.accept_invite(&grant, "al".parse().unwrap()).await, StoreError::NotFound { what: "invite" });
        let still_there = world.store.user(&reads(&acme), jo.id).await.unwrap();
        assert_eq!(UserRecord { key_last_used_at: None, ..still_there }, jo);
    }

    async fn the_last_owner_stays(world: World) {
        let acme = world.tenant("acme", Plan::Shared).await;
        let (jo, _) = person(&world, &acme, "jo", PersonRole::Owner, None).await;
        let (al, _) = person(&world, &acme, "al", PersonRole::Reader, None).await;
        let lower = async |user| world.store.set_user_role(&appoints(&acme), user, PersonRole::Reader).await;
        assert_error!(lower(jo.id).await, StoreError::Organization(OrganizationConflict::LastOwner));
        assert_error!(world.store.remove_user(&manages(&acme), jo.id).await, StoreError::Organization(OrganizationConflict::LastOwner));
        world.store.set_user_role(&appoints(&acme), jo.id, PersonRole::Owner).await.unwrap();
        assert_eq!(lower(al.id).await.unwrap().role, PersonRole::Reader);
        world.store.set_user_role(&appoints(&acme), al.id, PersonRole::Owner).await.unwrap();
        assert_eq!(lower(jo.id).await.unwrap().role, PersonRole::Reader);
        assert_error!(lower(al.id).await, StoreError::Organization(OrganizationConflict::LastOwner));
        world.store.remove_user(&manages(&acme), jo.id).await.unwrap();
        assert_error!(world.store.remove_user(&manages(&acme), jo.id).await, StoreError::NotFound { what: "person" });
    }

    async fn two_owners_who_lower_each_other_leave_one(world: World) {
        let acme = world.tenant("acme", Plan::Shared).await;
        let (jo, _) = person(&world, &acme, "jo", PersonRole::Owner, None).await;
        let (al, _) = person(&world, &acme, "al", PersonRole::Owner, None).await;
        let (appoint, manage) = (appoints(&acme), manages(&acme));
        let one = world.store.set_user_role(&appoint, jo.id, PersonRole::Reader);
        let other = world.store.remove_user(&manage, al.id);
        let (one, other) = tokio::join!(one, other);
        assert_eq!(u8::from(one.is_ok()) + u8::from(other.is_ok()), 1, "{one:?} {other:?}");
    }

    async fn what_a_person_loses_its_keys_lose(world: World) {
        let acme = world.tenant("acme", Plan::Shared).await;
        let (web, app) = (project(&world, &acme, "web").await, project(&world, &acme, "app").await);
        person(&world, &acme, "boss", PersonRole::Owner, None).await;
        let (jo, as_admin) = person(&world, &acme, "jo", PersonRole::Owner, Some(vec![(web, ProjectRole::Member)])).await;
        let in_web = caller(&world, &key_of(&world, &acme, Role::Member, Some(web), Some(jo.id)).await.unwrap()).await;
        let in_app = caller(&world, &key_of(&world, &acme, Role::Member, Some(app), Some(jo.id)).await.unwrap()).await;
        let reader = caller(&world, &key_of(&world, &acme, Role::Reader, None, Some(jo.id)).await.unwrap()).await;
        let machine = caller(&world, &machine_key(&world, &acme, web).await).await;

        world.store.set_user_role(&appoints(&acme), jo.id, PersonRole::Reader).await.unwrap();
        let alive = async || {
            let mut alive = Vec::new();
            for caller in [&as_admin, &in_web, &in_app, &reader, &machine] {
                alive.push(is_let_in(&world, caller).await);
            }
            alive
        };
        assert_eq!(alive().await, [false, true, false, true, true]);
        world.store.remove_project_user(&manages(&acme), web, jo.id).await.unwrap();
        assert_eq!(alive().await, [false, false, false, true, true]);
        assert_error!(world.store.remove_project_user(&manages(&acme), web, jo.id).await, StoreError::NotFound { .. });
        world.store.remove_user(&manages(&acme), jo.id).await.unwrap();
        assert_eq!(alive().await, [false, false, false, false, true]);
        assert_error!(world.store.user(&reads(&acme), jo.id).await, StoreError::NotFound { .. });
        let account = match machine.owner() {
            Some(KeyOwner::ServiceAccount(account)) => account,
            other => panic!("{other:?}"),
        };
        assert_error!(world.store.remove_service_account(&manages(&acme), app, account).await, StoreError::NotFound { .. });
        world.store.remove_service_account(&manages(&acme), web, account).await.unwrap();
        assert_eq!(alive().await, [false; 5]);
    }

    async fn nobody_holds_a_key_that_goes_beyond_what_he_is(world: World) {
        let acme = world.tenant("acme", Plan::Shared).await;
        let (web, app) = (project(&world, &acme, "web").await, project(&world, &acme, "app").await);
        let (owner, _) = person(&world, &acme, "owner", PersonRole::Owner, None).await;
        let (jo, _) = person(&world, &acme, "jo", PersonRole::Reader, Some(vec![(web, ProjectRole::Member)])).await;
        for (who, role, project, allowed) in [
            (owner.id, Role::Admin, None, true),
            (owner.id, Role::Member, Some(app), true),
            (owner.id, Role::Admin, Some(app), false),
            (jo.id, Role::Admin, None, false),
            (jo.id, Role::Reader, None, true),
            (jo.id, Role::Member, Some(web), true),
            (jo.id, Role::Member, Some(app), false),
            // What names no project belongs to the default one, in which he is not.
            (jo.id, Role::Member, None, false),
        ] {
            let made = key_of(&world, &acme, role, project, Some(who)).await;
            match made {
                Ok(_) if allowed => {}
                Err(StoreError::Denied(Denied::Exceeds)) if !allowed => {}
                other => panic!("{who} {role} {project:?}: {:?}", other.map(|made| made.summary)),
            }
        }
        // Nor by a change of one that he holds.
        let grant = manages_keys(&acme);
        let held = key_of(&world, &acme, Role::Reader, None, Some(jo.id)).await.unwrap().summary.id;
        for role in [Role::Admin, Role::Member] {
            let change = KeyChange { rights: Some(grant.hand_out(role, Scopes::ALL).unwrap()), ..KeyChange::default() };
            assert_error!(world.store.update_key(&grant, held, change).await, StoreError::Denied(Denied::Exceeds));
        }
        // A machine administers nothing, and works in its own project.
        let machine = machine_key(&world, &acme, web).await;
        assert_eq!((machine.summary.role, machine.summary.project), (Role::Service, Some(web)));
        let account = machine.summary.owner;
        for (role, project) in [(Role::Admin, None), (Role::Service, Some(app)), (Role::Service, None)] {
            let new = NewKey { project, owner: account, ..new_key(&grant, role) };
            assert!(world.store.create_key(&grant, new).await.is_err(), "{role} {project:?}");
        }
        let new = NewKey { project: Some(web), owner: account, ..new_key(&grant, Role::Service) };
        world.store.create_key(&grant, new).await.unwrap();
    }

    async fn a_projects_key_sees_that_project_and_no_other(world: World) {
        let acme = world.tenant("acme", Plan::Shared).await;
        let (web, app) = (project(&world, &acme, "web").await, project(&world, &acme, "app").await);
        let (jo, in_web) = person(&world, &acme, "jo", PersonRole::Reader, Some(vec![(web, ProjectRole::Member)])).await;
        let (al, in_app) = person(&world, &acme, "al", PersonRole::Reader, Some(vec![(app, ProjectRole::Member)])).await;
        let account = machine_key(&world, &acme, app).await.summary.owner;
        let Some(KeyOwner::ServiceAccount(account)) = account else { panic!("{account:?}") };
        use_key(&world, &acme, &in_web).await;
        use_key(&world, &acme, &in_app).await;
        use_key(&world, &acme, &in_app).await;

        let reader = caller(&world, &key_of(&world, &acme, Role::Reader, Some(web), None).await.unwrap()).await;
        let grant = reader.grant(ReadOrganization { tenant: acme.id() }).unwrap();
        let seen = world.store.projects(&grant, first(9), true).await.unwrap().items;
        assert_eq!(seen.iter().map(|project| project.id).collect::<Vec<_>>(), [web]);
        world.store.project(&grant, web).await.unwrap();
        assert_eq!(world.store.project_users(&grant, web, first(9)).await.unwrap().items.len(), 1);
        world.store.project_user(&grant, web, jo.id).await.unwrap();
        assert_eq!(world.store.service_accounts(&grant, web, first(9)).await.unwrap().items, []);
        assert_error!(world.store.project(&grant, app).await, StoreError::NotFound { .. });
        assert_error!(world.store.projects(&grant, PageQuery { after: Some(app), limit: 9 }, true).await, StoreError::NotFound { .. });
        assert_error!(world.store.project_users(&grant, app, first(9)).await, StoreError::NotFound { .. });
        assert_error!(world.store.project_user(&grant, app, al.id).await, StoreError::NotFound { .. });
        assert_error!(world.store.service_accounts(&grant, app, first(9)).await, StoreError::NotFound { .. });
        assert_error!(world.store.service_account(&grant, app, account).await, StoreError::NotFound { .. });
        // What is the whole tenant's.
        assert_error!(world.store.users(&grant, first(9), &[]).await, StoreError::Denied(Denied::Hidden));
        assert_error!(world.store.user(&grant, jo.id).await, StoreError::Denied(Denied::Hidden));
        assert_error!(world.store.invites(&grant, first(9)).await, StoreError::Denied(Denied::Hidden));
        let audit = reader.grant(ReadAudit { tenant: acme.id() }).unwrap();
        assert_error!(world.store.verify_audit(&audit).await, StoreError::Denied(Denied::Hidden));
        for projects in [vec![], vec![app]] {
            let query = AuditQuery { limit: 100, projects, ..AuditQuery::default() };
            assert_eq!(world.store.audit(&audit, &query).await.unwrap().records, []);
        }

        let all = UsageQuery { group_by_project: true, group_by_user: true, ..crate::usage::query(START) };
        let whole = [(Some(web), Some(jo.id), 1), (Some(app), Some(al.id), 2)];
        assert_eq!(used(&world, &acme.admin, &acme, all.clone()).await, whole);
        assert_eq!(used(&world, &reader, &acme, all.clone()).await, whole[..1]);
        for query in [
            UsageQuery { projects: vec![app], ..all.clone() },
            UsageQuery { users: vec![al.id], ..all.clone() },
        ] {
            assert_eq!(used(&world, &acme.admin, &acme, query.clone()).await, whole[1..]);
            assert_eq!(used(&world, &reader, &acme, query).await, []);
        }
        // What names no project is the default one's.
        use_key(&world, &acme, &acme.admin).await;
        let usual = UsageQuery { projects: vec![ProjectId::default_of(acme.id())], group_by_project: true, ..crate::usage::query(START) };
        assert_eq!(used(&world, &acme.admin, &acme, usual).await, [(Some(ProjectId::default_of(acme.id())), None, 1)]);
    }

    async fn a_machine_is_what_was_said_of_it(world: World) {
        let acme = world.tenant("acme", Plan::Shared).await;
        let web = project(&world, &acme, "web").await;
        let ends = world.store.now().plus(Duration::from_secs(60));
        let new = NewServiceAccount { project: web, name: "ci".parse().unwrap(), key: Some(NewMachineKey { expires_at: Some(ends) }) };
        let (made, key) = world.store.create_service_account(&appoints(&acme), new).await.unwrap();
        let key = key.unwrap();
        assert_eq!((key.summary.role, key.summary.expires_at, &key.summary.name), (Role::Service, Some(ends), &Some(made.name.clone())));
        let machine = caller(&world, &key).await;
        world.advance(60);
        assert!(!is_let_in(&world, &machine).await);
        let name = Some("nightly".parse().unwrap());
        let renamed = world.store.update_service_account(&appoints(&acme), web, made.id, name, None).await.unwrap();
        assert_eq!((renamed.name.as_str(), renamed.role), ("nightly", made.role));
        let raised = world.store.update_service_account(&appoints(&acme), web, made.id, None, Some(ProjectRole::Owner)).await.unwrap();
        assert_eq!((raised.name.as_str(), raised.role), ("nightly", Some(ProjectRole::Owner)));
        assert_eq!(world.store.service_account(&reads(&acme), web, made.id).await.unwrap(), raised);
        let idle = NewServiceAccount { project: web, name: "idle".parse().unwrap(), key: None };
        let (idle, none) = world.store.create_service_account(&appoints(&acme), idle).await.unwrap();
        assert!(idle.role.is_none() && none.is_none());
        assert_eq!(world.store.service_account(&reads(&acme), web, idle.id).await.unwrap(), idle);
    }

    async fn who_is_in_a_project_is_not_put_there_again(world: World) {
        let acme = world.tenant("acme", Plan::Shared).await;
        let web = project(&world, &acme, "web").await;
        let (bo, _) = person(&world, &acme, "bo", PersonRole::Reader, None).await;
        let add = async |who| world.store.add_project_user(&appoints(&acme), web, who, ProjectRole::Member).await;
        let added = add(Person::Id(bo.id)).await.unwrap();
        assert_eq!((added.user, added.role), (bo.id, ProjectRole::Member));
        for who in [Person::Id(bo.id), Person::Email(email("bo"))] {
            assert_error!(add(who).await, StoreError::Organization(OrganizationConflict::AlreadyMember));
        }
        let raised = world.store.set_project_user_role(&appoints(&acme), web, bo.id, ProjectRole::Owner).await.unwrap();
        assert_eq!(raised.role, ProjectRole::Owner);
        assert_eq!(world.store.project_users(&reads(&acme), web, first(9)).await.unwrap().items, [raised]);
    }

    async fn keys_are_listed_with_who_holds_them(world: World) {
        let acme = world.tenant("acme", Plan::Shared).await;
        let web = project(&world, &acme, "web").await;
        world.advance(1);
        let machine = machine_key(&world, &acme, web).await.summary.id;
        world.advance(1);
        let (jo, _) = person(&world, &acme, "jo", PersonRole::Reader, Some(vec![(web, ProjectRole::Member)])).await;
        world.advance(1);
        let (owner, as_owner) = person(&world, &acme, "owner", PersonRole::Owner, None).await;
        let grant = manages_keys(&acme);
        let held = world.store.held_keys(&grant, Keyring::Project(web), first(9), KeyOrder::OldestFirst).await.unwrap().items;
        let told: Vec<String> = held.iter().map(|held| format!("{:?}", held.holder)).collect();
        assert_eq!(held[0].key.id, machine);
        assert!(told[0].contains("ServiceAccount") && told[0].contains("\"ci\""), "{told:?}");
        assert!(told[1].contains(&jo.id.to_string()) && told[1].contains("Some(Member)"), "{told:?}");
        let admins = world.store.held_keys(&grant, Keyring::Administration, first(9), KeyOrder::NewestFirst).await.unwrap().items;
        assert_eq!(admins.iter().map(|held| Some(held.key.id)).collect::<Vec<_>>(), [as_owner.key(), acme.admin.key()]);
        assert!(format!("{:?}", admins[0].holder).contains(&owner.id.to_string()) && admins[1].holder.is_none());
        let older = PageQuery { after: as_owner.key(), limit: 1 };
        let page = world.store.held_keys(&grant, Keyring::Administration, older, KeyOrder::NewestFirst).await.unwrap();
        assert_eq!((page.items.len(), page.has_more), (1, false));
        // A key is found where it belongs.
        world.store.held_key(&grant, Keyring::Project(web), machine).await.unwrap();
        assert_error!(world.store.held_key(&grant, Keyring::Administration, machine).await, StoreError::NotFound { .. });
        let usual = Keyring::Project(ProjectId::default_of(acme.id()));
        assert_error!(world.store.held_key(&grant, usual, machine).await, StoreError::NotFound { .. });
        world.store.revoke_key(&grant, machine).await.unwrap();
        assert_error!(world.store.held_key(&grant, Keyring::Project(web), machine).await, StoreError::NotFound { .. });
    }

    async fn a_stranger_finds_and_changes_nobody(world: World) {
        let (acme, evil) = (world.tenant("acme", Plan::Shared).await, world.tenant("evil", Plan::Shared).await);
        let web = project(&world, &acme, "web").await;
        let (jo, caller) = person(&world, &acme, "jo", PersonRole::Owner, Some(vec![(web, ProjectRole::Member)])).await;
        let machine = machine_key(&world, &acme, web).await.summary;
        let Some(KeyOwner::ServiceAccount(account)) = machine.owner else { panic!() };
        let waiting = invite(&world, &acme, "al", PersonRole::Reader, None).await.record;
        let before = (actions(&world, &acme).await, world.store.users(&reads(&acme), first(9), &[]).await.unwrap());
        let (store, read, manage, appoint, keys) = (&world.store, reads(&evil), manages(&evil), appoints(&evil), manages_keys(&evil));
        let own = ProjectId::default_of(evil.id());

        assert_error!(store.project(&read, web).await, StoreError::NotFound { .. });
        assert_error!(store.projects(&read, PageQuery { after: Some(web), limit: 9 }, true).await, StoreError::NotFound { .. });
        assert_error!(store.rename_project(&manage, web, "x".parse().unwrap()).await, StoreError::NotFound { .. });
        assert_error!(store.archive_project(&manage, web).await, StoreError::NotFound { .. });
        assert_error!(store.archive_project(&manage, ProjectId::default_of(acme.id())).await, StoreError::NotFound { .. });
        assert_error!(store.user(&read, jo.id).await, StoreError::NotFound { .. });
        assert_error!(store.users(&read, PageQuery { after: Some(jo.id), limit: 9 }, &[]).await, StoreError::NotFound { .. });
        assert_eq!(store.users(&read, first(9), &[email("jo")]).await.unwrap().items, []);
        assert_error!(store.set_user_role(&appoint, jo.id, PersonRole::Reader).await, StoreError::NotFound { .. });
        assert_error!(store.remove_user(&manage, jo.id).await, StoreError::NotFound { .. });
        assert_error!(store.invite(&read, waiting.id).await, StoreError::NotFound { .. });
        assert_error!(store.delete_invite(&manage, waiting.id).await, StoreError::NotFound { .. });
        for project in [web, own] {
            assert_error!(store.add_project_user(&appoint, project, Person::Id(jo.id), ProjectRole::Member).await, StoreError::NotFound { .. });
            assert_error!(store.add_project_user(&appoint, project, Person::Email(email("jo")), ProjectRole::Member).await, StoreError::NotFound { .. });
            assert_error!(store.project_user(&read, project, jo.id).await, StoreError::NotFound { .. });
            assert_error!(store.set_project_user_role(&appoint, project, jo.id, ProjectRole::Owner).await, StoreError::NotFound { .. });
            assert_error!(store.remove_project_user(&manage, project, jo.id).await, StoreError::NotFound { .. });
            assert_error!(store.service_account(&read, project, account).await, StoreError::NotFound { .. });
            assert_error!(store.update_service_account(&appoint, project, account, None, Some(ProjectRole::Owner)).await, StoreError::NotFound { .. });
            assert_error!(store.remove_service_account(&manage, project, account).await, StoreError::NotFound { .. });
            assert_error!(store.held_key(&keys, Keyring::Project(project), machine.id).await, StoreError::NotFound { .. });
        }
        assert_error!(store.project_users(&read, web, first(9)).await, StoreError::NotFound { .. });
        assert_error!(store.service_accounts(&read, web, first(9)).await, StoreError::NotFound { .. });
        assert_error!(store.held_keys(&keys, Keyring::Project(web), first(9), KeyOrder::OldestFirst).await, StoreError::NotFound { .. });
        assert_error!(store.held_key(&keys, Keyring::Administration, caller.key().unwrap()).await, StoreError::NotFound { .. });
        let new = NewServiceAccount { project: web, name: "ci".parse().unwrap(), key: None };
        assert_error!(store.create_service_account(&appoint, new).await, StoreError::NotFound { .. });
        for (project, owner) in [(Some(web), None), (None, Some(KeyOwner::User(jo.id))), (Some(own), machine.owner)] {
            let new = NewKey { project, owner, ..new_key(&keys, Role::Member) };
            assert_error!(store.create_key(&keys, new).await, StoreError::NotFound { .. });
        }
        assert_eq!(before, (actions(&world, &acme).await, world.store.users(&reads(&acme), first(9), &[]).await.unwrap()));
        assert!(is_let_in(&world, &caller).await);
    }

    /// Two tenants have the same in everything: whatever one does with its own, the other's stays as it is.
    async fn what_two_have_alike_stays_each_ones_own(world: World) {
        let (acme, evil) = (world.tenant("acme", Plan::Shared).await, world.tenant("evil", Plan::Shared).await);
        let (acmes, acmes_callers) = furnish(&world, &acme).await;
        let (evils, _) = furnish(&world, &evil).await;
        let before = listed(&world, &acme, acmes).await;
        assert_eq!(before.lines().count(), listed(&world, &evil, evils).await.lines().count(), "each finds its own only");

        let assert_is_as_before = async || {
            assert_eq!(listed(&world, &acme, acmes).await, before);
            for caller in &acmes_callers {
                assert!(is_let_in(&world, caller).await);
            }
        };
        let erased = async |tenant: &Tenant| {
            let grant = world.operator.grant(ManageTenant { tenant: tenant.id() }).unwrap();
            let removed = world.store.delete_tenant(&grant).await.unwrap().removed;
            ["projects", "users", "invites", "service_accounts", "project_users"].map(|table| removed[table])
        };
        let (store, read, manage, appoint) = (&world.store, reads(&evil), manages(&evil), appoints(&evil));
        let people = store.users(&read, first(9), &[]).await.unwrap().items;
        let [jo, al] = ["jo", "al"].map(|name| people.iter().find(|user| user.email == email(name)).unwrap().id);
        // The other's owner does not stand in for the last of one's own.
        assert_error!(store.remove_user(&manage, jo).await, StoreError::Organization(OrganizationConflict::LastOwner));
        let waiting = store.invites(&read, first(9)).await.unwrap().items.into_iter().find(|invite| invite.email == email("kim"));
        store.delete_invite(&manage, waiting.unwrap().id).await.unwrap();
        invite(&world, &evil, "kim", PersonRole::Owner, None).await;
        let machine = store.service_accounts(&read, evils, first(9)).await.unwrap().items[0].id;
        store.update_service_account(&appoint, evils, machine, None, Some(ProjectRole::Owner)).await.unwrap();
        store.remove_service_account(&manage, evils, machine).await.unwrap();
        store.set_project_user_role(&appoint, evils, al, ProjectRole::Owner).await.unwrap();
        store.remove_project_user(&manage, evils, al).await.unwrap();
        store.set_user_role(&appoint, al, PersonRole::Owner).await.unwrap();
        store.remove_user(&manage, al).await.unwrap();
        store.rename_project(&manage, evils, "renamed".parse().unwrap()).await.unwrap();
        store.archive_project(&manage, evils).await.unwrap();
        store.rotate_key(&manages_keys(&evil)).await.unwrap();
        assert_is_as_before().await;

        assert_eq!(erased(&evil).await, [2, 2, 2, 1, 1], "the certificate counts what was its own");
        assert_is_as_before().await;
        assert_eq!(erased(&acme).await, [2, 2, 3, 1, 2], "the second certificate is not the first one's");
    }

    async fn what_is_older_than_projects_belongs_to_the_default_one(world: World) {
        let (acme, other) = (world.tenant("acme", Plan::Shared).await, world.tenant("other", Plan::Shared).await);
        let (member, reader) = (world.key(&acme, Role::Member).await, world.key(&acme, Role::Reader).await);
        let grant = world.operator.grant(ManageTenant { tenant: other.id() }).unwrap();
        world.store.delete_tenant(&grant).await.unwrap();
        use_key(&world, &acme, &caller(&world, &member).await).await;
        world.store.close().await;
        // As if the step that brought projects into use had never been applied.
        let undo = |schema: &str| format!(
            "DROP INDEX {schema}project_users_of_user; DROP TABLE {schema}invites;
            CREATE TABLE {schema}invites (id TEXT); UPDATE {schema}keys SET project_id = NULL;
            DELETE FROM {schema}projects; ALTER TABLE {schema}usage_events DROP COLUMN project_id;
            ALTER TABLE {schema}usage_events DROP COLUMN user_id; DELETE FROM {schema}schema_history WHERE version = 23"
        );
        match &world.backend {
            Backend::Sqlite => crate::audit::run_in_file(&world, "control.db", &undo("")).await,
            backend => drop(backend.test_database().sql(&undo("atelier."))),
        }
        let world = world.reopen().await;
        let usual = ProjectId::default_of(acme.id());
        let projects = world.store.projects(&reads(&acme), first(9), true).await.unwrap().items;
        assert_eq!(projects.iter().map(|project| project.id).collect::<Vec<_>>(), [usual]);
        for (key, project) in [(&member, Some(usual)), (&reader, None)] {
            assert_eq!(world.store.key(&manages_keys(&acme), key.summary.id).await.unwrap().project, project);
            assert_eq!(caller(&world, key).await.project(), project);
        }
        let usage = UsageQuery { group_by_project: true, ..crate::usage::query(START) };
        assert_eq!(used(&world, &acme.admin, &acme, usage).await, [(Some(usual), None, 1)]);
        person(&world, &acme, "jo", PersonRole::Reader, None).await;
    }

    async fn what_names_people_is_gone_with_them_and_with_the_tenant(world: World) {
        let acme = world.tenant("acme", Plan::Shared).await;
        let data = world.folder.path().join("data");
        person(&world, &acme, "boss", PersonRole::Owner, None).await;
        let (gone, _) = person(&world, &acme, &format!("{MARKER}.removed"), PersonRole::Owner, None).await;
        world.store.remove_user(&manages(&acme), gone.id).await.unwrap();
        let web = project(&world, &acme, &format!("{MARKER}-project")).await;
        person(&world, &acme, &format!("{MARKER}.present"), PersonRole::Reader, Some(vec![(web, ProjectRole::Owner)])).await;
        invite(&world, &acme, &format!("{MARKER}.invited"), PersonRole::Reader, None).await;
        let key = Some(NewMachineKey { expires_at: None });
        let new = NewServiceAccount { project: web, name: format!("{MARKER}-machine").parse().unwrap(), key };
        world.store.create_service_account(&appoints(&acme), new).await.unwrap();
        let page = world.store.users(&reads(&acme), first(9), std::slice::from_ref(&gone.email)).await.unwrap();
        assert_eq!(page.items, []);
        assert_ne!(places_with(&world.backend, &data, MARKER), [""; 0], "it can be found before");
        let grant = world.operator.grant(ManageTenant { tenant: acme.id() }).unwrap();
        let erasure = world.store.delete_tenant(&grant).await.unwrap();
        for (kind, count) in [("users", 3), ("projects", 2), ("invites", 3), ("service_accounts", 1), ("project_users", 2)] {
            assert_eq!(erasure.removed[kind], count, "{kind}: {erasure:?}");
        }
        assert_eq!(places_with(&world.backend, &data, MARKER), [""; 0]);
    }
}

/// On one database: the count is a statement like any other, and a thousand projects take their time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_a_limit_and_a_place_that_was_left_is_free() {
    let world = World::open(Backend::Sqlite).await;
    let acme = world.tenant("acme", Plan::Shared).await;
    let mut last = project(&world, &acme, "first").await;
    for at in 2..PROJECTS_PER_TENANT_MAX {
        last = project(&world, &acme, &format!("p{at}")).await;
    }
    let more = world.store.create_project(&manages(&acme), "more".parse().unwrap()).await;
    assert_error!(more, StoreError::TooMany { what: "projects", .. });
    let other = world.tenant("other", Plan::Shared).await;
    project(&world, &other, "another tenant's count is its own").await;
    world.store.archive_project(&manages(&acme), last).await.unwrap();
    world.store.create_project(&manages(&acme), "more".parse().unwrap()).await.unwrap();
}
