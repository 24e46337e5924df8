//! What callers and keys tell about themselves: nothing else in the program decides who somebody is.

use atelier_access::key::KEY_RANDOM_BYTES;
use atelier_access::{ApiKey, Caller, KeyKind, KeyOwner, KeyPurpose, KeyRecord, Pepper, PublicId, verify};
use atelier_domain::{KeyId, ProjectId, Role, Scopes, TenantId, Timestamp, UserId};

const NOW: Timestamp = Timestamp::from_seconds(1_000);
const PEPPER_BYTE: u8 = 231;

fn pepper() -> Pepper {
    Pepper::new([PEPPER_BYTE; 32])
}

fn key(kind: KeyKind) -> ApiKey {
    ApiKey::generate(kind, [7; KEY_RANDOM_BYTES])
}

fn record(role: Role) -> KeyRecord {
    let key = key(KeyKind::of(role));
    KeyRecord {
        id: KeyId::generate(NOW, [1; 10]),
        public_id: key.public_id().clone(),
        tenant: (role != Role::Operator).then(|| TenantId::generate(NOW, [2; 10])),
        name: None,
        role,
        purpose: KeyPurpose::Key,
        scopes: Scopes::ALL,
        project: (role != Role::Operator).then(|| ProjectId::generate(NOW, [3; 10])),
        owner: (role != Role::Operator).then(|| KeyOwner::User(UserId::generate(NOW, [4; 10]))),
        secret_hash: key.secret_hash(&pepper()),
        created_at: NOW,
        expires_at: None,
        revoked_at: None,
        is_suspended: false,
    }
}

fn caller(role: Role) -> Caller {
    verify(&key(KeyKind::of(role)), &record(role), &pepper(), NOW).unwrap()
}

#[test]
fn a_caller_says_what_its_record_says() {
    for role in Role::ALL {
        let (caller, record) = (caller(role), record(role));
        assert_eq!(caller.is_operator(), role == Role::Operator, "{role}");
        assert!(!caller.is_anonymous(), "{role}");
        let told = (caller.key(), caller.tenant(), caller.project(), caller.owner());
        assert_eq!(told, (Some(record.id), record.tenant, record.project, record.owner), "{role}");
    }
    for keyless in [Caller::anonymous(), Caller::system("test")] {
        assert!(!keyless.is_operator());
        assert_eq!(keyless.is_anonymous(), keyless == Caller::anonymous());
        assert_eq!((keyless.key(), keyless.tenant(), keyless.project(), keyless.owner()), (None, None, None, None));
    }
}

#[test]
fn what_is_shown_of_a_key_names_it_and_opens_nothing() {
    for (kind, letter) in [(KeyKind::Operator, "o"), (KeyKind::Tenant, "t")] {
        let key = key(kind);
        let text = key.reveal();
        let parts: Vec<&str> = text.split('_').collect();
        assert_eq!(key.public_id().as_str(), parts[2]);
        assert_eq!(key.public_id().to_string(), parts[2]);
        assert_eq!(key.redacted(), format!("atl_{letter}_{}_…", parts[2]));
        assert_eq!(format!("{key:?}"), format!("ApiKey({})", key.redacted()));
        assert!(ApiKey::parse(&key.redacted()).is_err());
    }
    let shown = format!("{:?}", pepper());
    assert!(
        shown.starts_with("Pepper") && !shown.contains(&PEPPER_BYTE.to_string()) && !shown.contains("e7"),
        "{shown}"
    );
}

#[test]
fn the_public_part_of_a_key_has_one_shape() {
    assert!("0123456789abcdEF".parse::<PublicId>().is_ok());
    for other in ["", "0123456789abcdE", "0123456789abcdEFG", "0123456789abcdE-", "0123456789abcdé", "                "]
    {
        assert!(other.parse::<PublicId>().is_err(), "{other:?}");
    }
}
