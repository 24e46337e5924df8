//! Single sign-on: whom an issuer vouches for, what that gives, and what it gives nobody.

use std::time::Duration;

use atelier_access::right::{
    Appoint, FindSignOn, JoinOrganization, ManageKeys, ManageOrganization, ManageSignOn, ManageTenant, ReadAudit,
    ReadModels, ReadSignOn, SignIn,
};
use atelier_access::{Caller, Denied, Granted};
use atelier_domain::limits::{
    LOGIN_KEY_LIFETIME, SESSION_IDLE_MAX, SESSION_LIFETIME, SESSIONS_PER_USER_MAX, SIGN_IN_CODE_TIME_MAX,
    SIGN_ON_DOMAINS_MAX,
};
use atelier_domain::{PersonRole, Plan, ProjectId, Role};
use atelier_store::{
    AuditQuery, KeyChange, KeyQuery, KeyRotation, NewInvite, NewSignOn, SignInRefused, StoreError, Vouched, rotate_keys,
};

use crate::encryption::places_with;
use crate::world::{
    Backend, Tenant, World, assert_error, assert_forgotten_within_a_second, database_options, on_each_database,
    open_options, open_store,
};

const ISSUER: &str = "https://id.example.com";
/// A secret of a client, to be looked for where it must not be.
const SECRET: &str = "find-me-secret-5f0e";

fn sign_on(issuer: &str, domains: &[&str]) -> NewSignOn {
    NewSignOn {
        issuer: issuer.to_owned(),
        client_id: "atelier".to_owned(),
        secret: Some(SECRET.to_owned()),
        domains: domains.iter().map(|domain| domain.parse().unwrap()).collect(),
        role: PersonRole::Reader,
    }
}

fn vouched(subject: &str, email: &str) -> Vouched {
    Vouched {
        issuer: ISSUER.to_owned(),
        client_id: "atelier".to_owned(),
        subject: subject.to_owned(),
        email: email.parse().unwrap(),
        name: Some("Jo".parse().unwrap()),
    }
}

fn finds() -> Granted<FindSignOn> {
    Caller::system("sign-on").grant(FindSignOn).unwrap()
}

fn lets_in(tenant: &Tenant) -> Granted<SignIn> {
    finds().narrow(SignIn { tenant: tenant.id() }).unwrap()
}

fn says(tenant: &Tenant) -> Granted<ManageSignOn> {
    tenant.may(ManageSignOn { tenant: tenant.id() })
}

async fn tenant(world: &World, name: &str, domains: &[&str]) -> Tenant {
    let tenant = world.tenant(name, Plan::Shared).await;
    world.store.set_sign_on(&says(&tenant), sign_on(ISSUER, domains)).await.unwrap();
    tenant
}

async fn invite(world: &World, tenant: &Tenant, email: &str, role: PersonRole) {
    let grant = tenant.may(Appoint { tenant: tenant.id() });
    let new = NewInvite { email: email.parse().unwrap(), role, projects: None };
    world.store.create_invite(&grant, new).await.unwrap();
}

/// Signs in with a browser; the session's text.
async fn session(world: &World, tenant: &Tenant, person: &Vouched) -> Result<String, StoreError> {
    Ok(world.store.sign_in(&lets_in(tenant), person).await?.key.key.reveal())
}

macro_rules! assert_refused {
    ($result:expr, $why:ident) => {
        assert_error!($result, StoreError::SignIn(SignInRefused::$why))
    };
}

macro_rules! assert_out {
    ($world:expr, $session:expr) => {
        assert_error!($world.store.authenticate_session($session).await, StoreError::Denied(Denied::NotAuthenticated))
    };
}

on_each_database! {
    async fn who_is_invited_comes_in_by_the_issuers_word_and_is_known_by_its_subject(world: World) {
        let acme = tenant(&world, "acme", &[]).await;
        assert_refused!(session(&world, &acme, &vouched("s-1", "jo@example.com")).await, NotInvited);
        invite(&world, &acme, "jo@example.com", PersonRole::Owner).await;
        let made = world.store.sign_in(&lets_in(&acme), &vouched("s-1", "Jo@Example.com")).await.unwrap();
        assert_eq!((made.user.role, made.key.summary.role), (PersonRole::Owner, Role::Admin));
        let caller = world.store.authenticate_session(&made.key.key.reveal()).await.unwrap();
        assert_eq!((caller.tenant(), caller.role()), (Some(acme.id()), Some(Role::Admin)));
        assert!(caller.grant(ManageKeys { tenant: acme.id() }).is_ok());
        // The subject is the person, whatever address the issuer names later.
        let again = world.store.sign_in(&lets_in(&acme), &vouched("s-1", "married@example.com")).await.unwrap();
        assert_eq!((again.user.id, again.user.email.as_str()), (made.user.id, "jo@example.com"));
        // The address is not, once it belongs to a subject: whoever has it at the issuer now is somebody else.
        assert_refused!(session(&world, &acme, &vouched("s-2", "jo@example.com")).await, OtherPerson);
        // Nobody who only showed a system's reason accepts an invite by its secret.
        let joins = Caller::system("test").grant(JoinOrganization { tenant: acme.id() }).unwrap();
        assert_error!(world.store.accept_invite(&joins, "jo".parse().unwrap()).await, StoreError::Denied(Denied::Hidden));
    }

    async fn a_domain_lets_people_in_as_what_the_tenant_said(world: World) {
        let acme = tenant(&world, "acme", &["example.com", "example.org"]).await;
        let made = world.store.sign_in(&lets_in(&acme), &vouched("s-1", "jo@example.com")).await.unwrap();
        let home = Some(ProjectId::default_of(acme.id()));
        assert_eq!((made.user.role, made.key.summary.role, made.key.summary.project), (PersonRole::Reader, Role::Member, home));
        for stranger in ["jo@mail.example.com", "jo@example.com.evil.example", "jo@notexample.com"] {
            assert_refused!(session(&world, &acme, &vouched(stranger, stranger)).await, NotInvited);
        }
        // Who is removed does not come back by the domain, but by an invite.
        invite(&world, &acme, "boss@example.com", PersonRole::Owner).await;
        session(&world, &acme, &vouched("s-0", "boss@example.com")).await.unwrap();
        let text = made.key.key.reveal();
        world.store.authenticate_session(&text).await.unwrap();
        let manages = acme.may(ManageOrganization { tenant: acme.id() });
        world.store.remove_user(&manages, made.user.id).await.unwrap();
        assert_out!(world, &text);
        assert_refused!(session(&world, &acme, &vouched("s-1", "jo@example.com")).await, Removed);
        invite(&world, &acme, "jo@example.com", PersonRole::Reader).await;
        let back = world.store.sign_in(&lets_in(&acme), &vouched("s-1", "jo@example.com")).await.unwrap();
        assert_ne!(back.user.id, made.user.id);
    }

    async fn one_tenants_issuer_says_nothing_to_another(world: World) {
        let (acme, evil) = (tenant(&world, "acme", &["example.com"]).await, world.tenant("evil", Plan::Shared).await);
        let made = world.store.sign_in(&lets_in(&acme), &vouched("s-1", "jo@example.com")).await.unwrap();
        // Nobody signs in where no issuer is trusted.
        assert_refused!(session(&world, &evil, &vouched("s-1", "jo@example.com")).await, Changed);
        world.store.set_sign_on(&says(&evil), sign_on("https://evil.example", &["example.com"])).await.unwrap();
        // The same subject and the same address at the other issuer: somebody else's person, in either direction.
        assert_refused!(session(&world, &evil, &vouched("s-1", "jo@example.com")).await, Changed);
        let theirs = Vouched { issuer: "https://evil.example".to_owned(), ..vouched("s-1", "jo@example.com") };
        assert_refused!(session(&world, &acme, &theirs).await, Changed);
        let other = world.store.sign_in(&lets_in(&evil), &theirs).await.unwrap();
        assert_ne!(other.user.id, made.user.id);
        let caller = world.store.authenticate_session(&other.key.key.reveal()).await.unwrap();
        assert_eq!(caller.tenant(), Some(evil.id()));
        assert!(caller.grant(ReadModels { tenant: acme.id() }).is_err());
        assert!(caller.acting_for(acme.id()).is_err());
        // What a browser keeps for one tenant opens for no other, and a changed byte for none.
        let sealed = world.store.seal_for_browser(&lets_in(&acme), "kept").unwrap();
        assert_eq!(world.store.open_from_browser(&lets_in(&acme), sealed.clone()).as_deref(), Some("kept"));
        assert_eq!(world.store.open_from_browser(&lets_in(&evil), sealed.clone()), None);
        let mut changed = sealed;
        *changed.last_mut().unwrap() ^= 1;
        assert_eq!(world.store.open_from_browser(&lets_in(&acme), changed), None);
        let name = |name: &str| name.parse().unwrap();
        assert_eq!(world.store.find_sign_on(&finds(), &name("acme")).await.unwrap(), Some(acme.id()));
        assert_eq!(world.store.find_sign_on(&finds(), &name("nobody")).await.unwrap(), None);
    }

    /// Two tenants trust the same issuer, and the same person belongs to both.
    async fn what_one_ends_goes_on_at_the_other(world: World) {
        let (acme, evil) = (tenant(&world, "acme", &["example.com"]).await, tenant(&world, "evil", &["example.com"]).await);
        let person = vouched("s-1", "jo@example.com");
        let made = world.store.sign_in(&lets_in(&acme), &person).await.unwrap();
        let begun = world.store.sign_in_program(&lets_in(&acme), &person, "challenge").await.unwrap();
        session(&world, &evil, &person).await.unwrap();
        world.store.sign_in_program(&lets_in(&evil), &person, "challenge").await.unwrap();
        // Another's session is nothing that one could end.
        assert!(!world.store.sign_out(&lets_in(&evil), made.key.summary.id).await.unwrap());
        // Who waits for one tenant's invite does not come into the other by it.
        invite(&world, &acme, "kim@elsewhere.example", PersonRole::Owner).await;
        assert_refused!(session(&world, &evil, &vouched("s-2", "kim@elsewhere.example")).await, NotInvited);
        assert!(world.store.remove_sign_on(&says(&evil)).await.unwrap());
        world.store.authenticate_session(&made.key.key.reveal()).await.unwrap();
        let erases = world.operator.grant(ManageTenant { tenant: evil.id() }).unwrap();
        let removed = world.store.delete_tenant(&erases).await.unwrap().removed;
        assert_eq!((removed["identities"], removed["sign_on"], removed["sign_in_codes"]), (1, 0, 0));
        world.store.authenticate_session(&made.key.key.reveal()).await.unwrap();
        let kept = world.store.sign_on(&acme.may(ReadSignOn { tenant: acme.id() })).await.unwrap().unwrap();
        assert_eq!(kept.issuer, ISSUER);
        world.store.redeem_code(&finds(), &begun.code.reveal(), "challenge").await.unwrap();
        session(&world, &acme, &vouched("s-2", "kim@elsewhere.example")).await.unwrap();
        // Whom the issuer's subject is, is still known.
        let again = world.store.sign_in(&lets_in(&acme), &vouched("s-1", "married@example.com")).await.unwrap();
        assert_eq!(again.user.id, made.user.id);
    }

    async fn a_session_is_for_a_browser_and_ends(world: World) {
        let acme = tenant(&world, "acme", &["example.com"]).await;
        let person = vouched("s-1", "jo@example.com");
        let made = world.store.sign_in(&lets_in(&acme), &person).await.unwrap();
        let text = made.key.key.reveal();
        assert!(text.starts_with("atl_s_"));
        // No cookie is a key, and no key a cookie.
        assert_error!(world.store.authenticate(&text).await, StoreError::Denied(Denied::NotAuthenticated));
        assert_out!(world, &acme.key.reveal());
        assert_out!(world, &format!("{text}x"));
        // In use it lives on, until it has lived long enough.
        let steps = SESSION_LIFETIME.as_secs() / (SESSION_IDLE_MAX.as_secs() - 60);
        for _ in 0..steps {
            world.advance(SESSION_IDLE_MAX.as_secs() - 60);
            world.store.authenticate_session(&text).await.unwrap();
        }
        world.advance(SESSION_IDLE_MAX.as_secs() - 61);
        assert_out!(world, &text);
        // Unused it ends before.
        let text = session(&world, &acme, &person).await.unwrap();
        world.store.authenticate_session(&text).await.unwrap();
        world.advance(SESSION_IDLE_MAX.as_secs());
        assert_out!(world, &text);
        // And it ends when it is told to, once, together with what goes on under it.
        let made = world.store.sign_in(&lets_in(&acme), &person).await.unwrap();
        let text = made.key.key.reveal();
        let caller = world.store.authenticate_session(&text).await.unwrap();
        assert_eq!(world.store.renew(&caller).await.unwrap(), caller);
        assert!(world.store.sign_out(&lets_in(&acme), made.key.summary.id).await.unwrap());
        assert_out!(world, &text);
        assert_error!(world.store.renew(&caller).await, StoreError::Denied(Denied::NotAuthenticated));
        assert!(!world.store.sign_out(&lets_in(&acme), made.key.summary.id).await.unwrap());
        // A key that somebody made is ended by whoever manages keys.
        assert!(!world.store.sign_out(&lets_in(&acme), acme.admin.key().unwrap()).await.unwrap());
        world.store.authenticate(&acme.key.reveal()).await.unwrap();
    }

    async fn a_session_is_a_key_to_those_who_manage_keys(world: World) {
        let acme = tenant(&world, "acme", &["example.com"]).await;
        let made = world.store.sign_in(&lets_in(&acme), &vouched("s-1", "jo@example.com")).await.unwrap();
        let (text, id) = (made.key.key.reveal(), made.key.summary.id);
        let manages = acme.may(ManageKeys { tenant: acme.id() });
        let listed = world.store.keys(&manages, KeyQuery::default()).await.unwrap();
        let mut purposes: Vec<_> = listed.iter().map(|key| (key.purpose.as_str(), key.redacted.contains("atl_s_"))).collect();
        // Both were made in the same millisecond, so their order is nobody's.
        purposes.sort_unstable();
        assert_eq!(purposes, [("key", false), ("session", true)]);
        let longer = KeyChange { expires_at: Some(world.store.now().plus(Duration::from_secs(1 << 30))), ..KeyChange::default() };
        assert_error!(world.store.update_key(&manages, id, longer).await, StoreError::NotFound { what: "key" });
        world.store.revoke_key(&manages, id).await.unwrap();
        assert_out!(world, &text);
        // Whoever is lowered loses what was more.
        invite(&world, &acme, "one@example.com", PersonRole::Owner).await;
        invite(&world, &acme, "two@example.com", PersonRole::Owner).await;
        let one = world.store.sign_in(&lets_in(&acme), &vouched("s-2", "one@example.com")).await.unwrap();
        session(&world, &acme, &vouched("s-3", "two@example.com")).await.unwrap();
        let appoints = acme.may(Appoint { tenant: acme.id() });
        world.store.set_user_role(&appoints, one.user.id, PersonRole::Reader).await.unwrap();
        assert_out!(world, &one.key.key.reveal());
        // Too many are not kept: the oldest goes.
        let person = vouched("s-1", "jo@example.com");
        let mut all = Vec::new();
        for _ in 0..=SESSIONS_PER_USER_MAX {
            world.advance(1);
            all.push(session(&world, &acme, &person).await.unwrap());
        }
        assert_out!(world, &all[0]);
        for kept in &all[1..] {
            world.store.authenticate_session(kept).await.unwrap();
        }
    }

    async fn a_code_makes_one_key_for_whoever_began(world: World) {
        let (acme, other) = (tenant(&world, "acme", &["example.com"]).await, tenant(&world, "other", &["example.com"]).await);
        let person = vouched("s-1", "jo@example.com");
        let begin = async |tenant: &Tenant| {
            world.store.sign_in_program(&lets_in(tenant), &person, "challenge").await.unwrap().code.reveal()
        };
        let redeem = async |code: &str, challenge: &str| world.store.redeem_code(&finds(), code, challenge).await;
        let code = begin(&acme).await;
        let made = redeem(&code, "challenge").await.unwrap();
        assert_eq!((made.tenant, made.user.email.as_str()), (acme.id(), "jo@example.com"));
        let text = made.key.key.reveal();
        let caller = world.store.authenticate(&text).await.unwrap();
        assert_eq!((caller.tenant(), caller.role()), (Some(acme.id()), Some(Role::Member)));
        assert_refused!(redeem(&code, "challenge").await, BadCode);
        world.store.authenticate(&text).await.unwrap();
        // Shown with something else it is spent.
        let code = begin(&acme).await;
        assert_refused!(redeem(&code, "another").await, BadCode);
        assert_refused!(redeem(&code, "challenge").await, BadCode);
        // Half of it is nothing, and spends nothing.
        let code = begin(&acme).await;
        let spliced = format!("{}{}", &code[..23], &begin(&other).await[23..]);
        assert_refused!(redeem(&spliced, "challenge").await, BadCode);
        for nothing in ["", "x", text.as_str()] {
            assert_refused!(redeem(nothing, "challenge").await, BadCode);
        }
        redeem(&code, "challenge").await.unwrap();
        // It is good for a while, as is the key.
        let code = begin(&acme).await;
        world.advance(SIGN_IN_CODE_TIME_MAX.as_secs());
        assert_refused!(redeem(&code, "challenge").await, BadCode);
        world.advance(LOGIN_KEY_LIFETIME.as_secs());
        assert_error!(world.store.authenticate(&text).await, StoreError::Denied(Denied::NotAuthenticated));
        // A code is neither key nor session.
        let code = begin(&acme).await;
        assert_error!(world.store.authenticate(&code).await, StoreError::Denied(Denied::NotAuthenticated));
        assert_out!(world, &code);
    }

    async fn another_issuer_begins_anew(world: World) {
        let acme = tenant(&world, "acme", &["example.com"]).await;
        let text = session(&world, &acme, &vouched("s-1", "jo@example.com")).await.unwrap();
        // The same one, with other domains: nobody notices, and the secret stays.
        let again = NewSignOn { secret: None, ..sign_on(ISSUER, &[]) };
        assert!(world.store.set_sign_on(&says(&acme), again).await.unwrap().has_secret);
        world.store.authenticate_session(&text).await.unwrap();
        assert_eq!(world.store.sign_on_client(&lets_in(&acme)).await.unwrap().secret.as_deref(), Some(SECRET));
        // Another one: everybody is out, and the secret is not shown to it.
        let other = NewSignOn { secret: None, ..sign_on("https://other.example", &[]) };
        assert!(!world.store.set_sign_on(&says(&acme), other).await.unwrap().has_secret);
        assert_out!(world, &text);
        assert_eq!(world.store.sign_on_client(&lets_in(&acme)).await.unwrap().secret, None);
        world.store.set_sign_on(&says(&acme), sign_on(ISSUER, &[])).await.unwrap();
        let text = session(&world, &acme, &vouched("s-1", "jo@example.com")).await.unwrap();
        assert!(world.store.remove_sign_on(&says(&acme)).await.unwrap());
        assert!(!world.store.remove_sign_on(&says(&acme)).await.unwrap());
        assert_out!(world, &text);
        assert_error!(world.store.sign_on_client(&lets_in(&acme)).await, StoreError::NotFound { .. });
        let reads = acme.may(ReadSignOn { tenant: acme.id() });
        assert_eq!(world.store.sign_on(&reads).await.unwrap(), None);
        // Bounds.
        let many: Vec<String> = (0..=SIGN_ON_DOMAINS_MAX).map(|at| format!("d{at}.example")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_error!(world.store.set_sign_on(&says(&acme), sign_on(ISSUER, &many)).await, StoreError::TooMany { .. });
        let long = format!("https://{}.example", "a".repeat(600));
        assert_error!(world.store.set_sign_on(&says(&acme), sign_on(&long, &[])).await, StoreError::TooLarge { .. });
    }

    async fn a_suspended_tenants_people_stay_outside(world: World) {
        let acme = tenant(&world, "acme", &["example.com"]).await;
        let person = vouched("s-1", "jo@example.com");
        let text = session(&world, &acme, &person).await.unwrap();
        let code = world.store.sign_in_program(&lets_in(&acme), &person, "challenge").await.unwrap().code.reveal();
        let manages = world.operator.grant(ManageTenant { tenant: acme.id() }).unwrap();
        world.store.set_suspended(&manages, true).await.unwrap();
        assert_error!(world.store.authenticate_session(&text).await, StoreError::Denied(Denied::Suspended));
        assert_error!(session(&world, &acme, &person).await, StoreError::Denied(Denied::Suspended));
        assert_error!(world.store.redeem_code(&finds(), &code, "challenge").await, StoreError::Denied(Denied::Suspended));
        assert_eq!(world.store.find_sign_on(&finds(), &"acme".parse().unwrap()).await.unwrap(), None);
        world.store.set_suspended(&manages, false).await.unwrap();
        world.store.authenticate_session(&text).await.unwrap();
    }

    async fn signing_in_is_on_record_and_names_no_secret(world: World) {
        let acme = tenant(&world, "acme", &["example.com"]).await;
        let person = vouched("subject-find-me", "jo@example.com");
        let made = world.store.sign_in(&lets_in(&acme), &person).await.unwrap();
        world.store.sign_out(&lets_in(&acme), made.key.summary.id).await.unwrap();
        world.store.record_refused_sign_in(&lets_in(&acme), "not_invited").await.unwrap();
        let reads = acme.may(ReadAudit { tenant: acme.id() });
        let query = AuditQuery { limit: 100, ..AuditQuery::default() };
        let trail = world.store.audit(&reads, &query).await.unwrap().records;
        let actions: Vec<_> = trail.iter().rev().map(|record| record.action.as_str()).collect();
        assert_eq!(actions, ["create_tenant", "set_sign_on", "add_user", "sign_in", "sign_out", "refuse_sign_in"]);
        let told = format!("{trail:?}");
        for secret in [SECRET, ISSUER, "jo@example.com", "subject-find-me", &made.key.key.reveal()[23..60]] {
            assert!(!told.contains(secret), "{secret}");
        }
        // Nor do the database's files: the secret is sealed, the subject a keyed hash.
        let data = world.folder.path().join("data");
        for hidden in [SECRET, "subject-find-me"] {
            assert_eq!(places_with(&world.backend, &data, hidden), [""; 0], "{hidden}");
        }
        assert_ne!(places_with(&world.backend, &data, "jo@example.com"), [""; 0]);
        // Erased, nothing of it is left.
        let manages = world.operator.grant(ManageTenant { tenant: acme.id() }).unwrap();
        let erasure = world.store.delete_tenant(&manages).await.unwrap();
        assert_eq!((erasure.removed["sign_on"], erasure.removed["identities"]), (1, 1), "{erasure:?}");
        for gone in ["jo@example.com", ISSUER] {
            assert_eq!(places_with(&world.backend, &data, gone), [""; 0], "{gone}");
        }
        assert_error!(session(&world, &acme, &person).await, StoreError::NotFound { .. });
    }

    async fn a_secret_outlives_new_keys(world: World) {
        let acme = tenant(&world, "acme", &["example.com"]).await;
        let made = world.store.sign_in(&lets_in(&acme), &vouched("s-1", "jo@example.com")).await.unwrap();
        let World { store, clock, operator, operator_key, folder, backend } = world;
        store.close().await;
        drop(store);
        let options = open_options(database_options(&backend), folder.path().join("data"), &clock);
        rotate_keys(options, &KeyRotation { next: None, data_keys: true }).await.unwrap();
        let store = open_store(&backend, &folder, &clock).await.unwrap();
        let world = World { store, clock, operator, operator_key, folder, backend };
        assert_eq!(world.store.sign_on_client(&lets_in(&acme)).await.unwrap().secret.as_deref(), Some(SECRET));
        // Who signed in before is the same person still.
        let again = world.store.sign_in(&lets_in(&acme), &vouched("s-1", "jo@example.com")).await.unwrap();
        assert_eq!(again.user.id, made.user.id);
    }
}

/// Whoever can write to the database cannot send the secret to an issuer of his own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_opens_for_its_own_issuer_only() {
    let world = World::open(Backend::postgres()).await;
    let acme = tenant(&world, "acme", &[]).await;
    world.backend.test_database().sql("UPDATE atelier.sign_on SET issuer = 'https://evil.example'");
    assert_error!(world.store.sign_on_client(&lets_in(&acme)).await, StoreError::DoesNotOpen { .. });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_learns_that_a_session_was_crowded_out() {
    let world = World::open(Backend::postgres()).await;
    let (other, _folder) = world.another_process().await;
    let acme = tenant(&world, "acme", &["example.com"]).await;
    let person = vouched("s-1", "jo@example.com");
    let first = session(&world, &acme, &person).await.unwrap();
    let caller = other.authenticate_session(&first).await.unwrap();
    for _ in 0..SESSIONS_PER_USER_MAX {
        world.advance(1);
        session(&world, &acme, &person).await.unwrap();
    }
    assert_forgotten_within_a_second(&other, &caller).await;
    other.close().await;
}
