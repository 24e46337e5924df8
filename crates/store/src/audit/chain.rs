//! Chains of events: each holds a keyed hash over itself and the one before, so that no event can be changed, moved,
//! removed or put between others by somebody who does not have the server's secret. What is cut off at the end is
//! noticed by the head, which says where the chain ends.
//!
//! Events from before there were hashes are linked all the same, only not stored so: the first hashed one binds them.

use std::fmt;

use atelier_access::Pepper;
use atelier_domain::{AuditEventId, Digest, TenantId, Timestamp};

use super::Actor;
use crate::text_enum;

text_enum! {
    /// What a chain tells.
    ChainKind {
        /// What was done to the installation.
        Operator => "operator",
        /// What was done to a tenant, its keys and its people.
        Administration => "administration",
        /// What was done to a tenant's code and models.
        Work => "work",
    }
}

/// One chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chain {
    Operator,
    Administration(TenantId),
    Work(TenantId),
}

impl Chain {
    pub(crate) fn kind(self) -> ChainKind {
        match self {
            Self::Operator => ChainKind::Operator,
            Self::Administration(_) => ChainKind::Administration,
            Self::Work(_) => ChainKind::Work,
        }
    }

    pub(crate) fn tenant(self) -> Option<TenantId> {
        match self {
            Self::Operator => None,
            Self::Administration(tenant) | Self::Work(tenant) => Some(tenant),
        }
    }
}

/// The chain's name in the database; part of what is hashed.
impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tenant() {
            None => write!(f, "{}", self.kind()),
            Some(tenant) => write!(f, "{} {tenant}", self.kind()),
        }
    }
}

/// Where a chain ends, or a place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) sequence: u64,
    pub(crate) hash: Digest,
}

impl Head {
    /// Before the first event.
    pub(crate) const GENESIS: Self = Self { sequence: 0, hash: Digest([0; 32]) };
}

/// An event as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: AuditEventId,
    /// Its place in the chain, from 1 upwards; 0 for one of the control database from before there were chains.
    pub(crate) sequence: u64,
    pub(crate) at: Timestamp,
    pub(crate) actor: Actor,
    pub(crate) action: String,
    pub(crate) subject: String,
    /// JSON, byte for byte as it is stored.
    pub(crate) detail: String,
    /// None for one from before there were hashes.
    pub(crate) hash: Option<Digest>,
}

impl Entry {
    /// The chain's end when this is the last event.
    pub(crate) fn head(&self) -> Head {
        Head { sequence: self.sequence, hash: self.hash.unwrap_or(Head::GENESIS.hash) }
    }
}

/// The secret of all chains, made of the server's pepper.
#[derive(Clone)]
pub(crate) struct ChainKey([u8; 32]);

impl fmt::Debug for ChainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChainKey(…)")
    }
}

impl ChainKey {
    pub(crate) fn new(pepper: &Pepper) -> Self {
        Self(pepper.subkey("audit chain"))
    }

    /// The hash of an event that follows the one with hash `previous`. Every field is preceded by its length, and one
    /// that may be absent by whether it is there; an event without a stored hash has another one than the same with it.
    pub(crate) fn link(&self, chain: Chain, previous: Digest, entry: &Entry) -> Digest {
        const TAG: &str = "atelier audit event v1";
        const TAG_UNHASHED: &str = "atelier audit event without a hash v1";
        let tag = if entry.hash.is_some() { TAG } else { TAG_UNHASHED };
        let Actor { text, key, owner, project } = &entry.actor;
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        let mut field = |bytes: &[u8]| {
            hasher.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
            hasher.update(bytes);
        };
        for given in [tag, &chain.to_string()] {
            field(given.as_bytes());
        }
        field(previous.as_bytes());
        field(&entry.sequence.to_le_bytes());
        field(&entry.at.micros().to_le_bytes());
        for given in [&entry.id.to_string(), text, &entry.action, &entry.subject, &entry.detail] {
            field(given.as_bytes());
        }
        let texts = [key.map(|key| key.to_string()), owner.clone(), project.map(|project| project.to_string())];
        for optional in texts {
            field(&[u8::from(optional.is_some())]);
            field(optional.unwrap_or_default().as_bytes());
        }
        Digest(*hasher.finalize().as_bytes())
    }
}

text_enum! {
    /// What is wrong with a chain.
    Fault {
        /// Events that were there are not: the sequence has a gap before this one.
        Missing => "events before this one are missing",
        /// The event, its place, or what came before it is not what was written.
        Altered => "this event, or one before it, is not what was written",
        /// The event has no hash, and came after events that have one.
        Unhashed => "this event was put in past the server",
        /// The chain ends before the event that was its last.
        Cut => "the chain ends before this event, which was its last",
        /// The chain's last event is another than the one that was written.
        Replaced => "this event is another than the one that was written",
        /// Nobody knows where the chain ends.
        Headless => "the record of where this chain ends is gone",
        /// The place of the events cannot be read.
        Unreadable => "the events cannot be read",
    }
}

/// Where a chain is not whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Break {
    /// The place in the chain, from 1 upwards.
    pub sequence: u64,
    /// The event there, where there is one.
    pub event: Option<AuditEventId>,
    /// What is wrong.
    pub fault: Fault,
}

/// Goes along a chain, event by event, and stops at the first that is not what was written.
#[derive(Debug)]
pub(crate) struct Walker<'a> {
    key: &'a ChainKey,
    chain: Chain,
    /// The last event that was passed.
    at: Head,
    /// Where the chain is said to end; it may go on from there.
    head: Head,
    is_hashed: bool,
}

impl<'a> Walker<'a> {
    /// From the beginning.
    pub(crate) fn whole(key: &'a ChainKey, chain: Chain, head: Head) -> Self {
        Self { key, chain, at: Head::GENESIS, head, is_hashed: false }
    }

    /// From the head on.
    pub(crate) fn beyond(key: &'a ChainKey, chain: Chain, head: Head) -> Self {
        Self { key, chain, at: head, head, is_hashed: head.sequence > 0 }
    }

    /// The last event that was passed.
    pub(crate) fn at(&self) -> Head {
        self.at
    }

    /// Passes an event.
    pub(crate) fn step(&mut self, entry: &Entry) -> Result<(), Break> {
        let expected = self.at.sequence + 1;
        let broken = |fault| Err(Break { sequence: expected, event: Some(entry.id), fault });
        let is_numbered = entry.sequence != 0;
        if entry.hash.is_none() && self.is_hashed {
            return broken(Fault::Unhashed);
        }
        if is_numbered && entry.sequence > expected {
            return broken(Fault::Missing);
        }
        if (is_numbered && entry.sequence < expected) || (!is_numbered && entry.hash.is_some()) {
            return broken(Fault::Altered);
        }
        let numbered = Entry { sequence: expected, ..entry.clone() };
        let linked = self.key.link(self.chain, self.at.hash, &numbered);
        if entry.hash.is_some_and(|stored| stored != linked) {
            return broken(Fault::Altered);
        }
        if expected == self.head.sequence && linked != self.head.hash {
            return broken(Fault::Replaced);
        }
        self.is_hashed = entry.hash.is_some();
        self.at = Head { sequence: expected, hash: linked };
        Ok(())
    }

    /// At the last event.
    pub(crate) fn end(&self) -> Result<(), Break> {
        if self.at.sequence < self.head.sequence {
            return Err(Break { sequence: self.head.sequence, event: None, fault: Fault::Cut });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use atelier_domain::KeyId;
    use proptest::prelude::*;

    use super::*;

    fn key() -> ChainKey {
        ChainKey::new(&Pepper::new([3; 32]))
    }

    fn chain() -> Chain {
        Chain::Work(TenantId::generate(Timestamp::from_seconds(1), [1; 10]))
    }

    fn event_id(at: usize) -> AuditEventId {
        AuditEventId::generate(Timestamp::from_seconds(1), [u8::try_from(at % 251).unwrap(); 10])
    }

    /// A chain of so many events, the first of them without hashes; and its head.
    fn written(count: usize, unhashed: usize) -> (Vec<Entry>, Head) {
        let (key, chain, mut at) = (key(), chain(), Head::GENESIS);
        let mut entries = Vec::new();
        for number in 1..=count {
            let who = KeyId::generate(Timestamp::from_seconds(1), [9; 10]);
            let actor = Actor { text: format!("admin {who}"), key: Some(who), owner: None, project: None };
            let mut entry = Entry {
                id: event_id(number),
                sequence: number as u64,
                at: Timestamp::from_seconds(number as i64),
                actor,
                action: "create_source".to_owned(),
                subject: format!("src_{number}"),
                detail: "{}".to_owned(),
                hash: (number > unhashed).then_some(at.hash),
            };
            let linked = key.link(chain, at.hash, &entry);
            entry.hash = entry.hash.map(|_| linked);
            at = Head { sequence: number as u64, hash: linked };
            entries.push(entry);
        }
        (entries, at)
    }

    fn walk(entries: &[Entry], head: Head) -> Result<(), Break> {
        let key = key();
        let mut walker = Walker::whole(&key, chain(), head);
        entries.iter().try_for_each(|entry| walker.step(entry))?;
        walker.end()
    }

    /// One change by somebody who has the rows and not the secret; false when it changed nothing.
    fn change(entries: &mut Vec<Entry>, what: u8, at: usize, text: &str) -> bool {
        let before = entries.clone();
        let at = at % entries.len();
        let entry = &mut entries[at];
        match what {
            0 => entry.subject = text.to_owned(),
            1 => entry.action = text.to_owned(),
            2 => entry.detail = text.to_owned(),
            3 => entry.actor.text = text.to_owned(),
            4 => entry.actor.owner = Some(text.to_owned()),
            5 => entry.actor.key = None,
            6 => entry.at = Timestamp::from_micros(entry.at.micros() + 1),
            7 => entry.id = event_id(250),
            8 => entry.sequence += 1,
            9 => entry.hash = None,
            10 => entry.hash = entry.hash.map(|_| Digest::of(text.as_bytes())),
            11 => drop(entries.remove(at)),
            12 => {
                entries.remove(at);
                (1..).zip(entries.iter_mut()).for_each(|(number, entry)| entry.sequence = number);
            }
            13 => entries.truncate(at),
            14 => {
                let other = (at + 1) % entries.len();
                entries.swap(at, other);
            }
            15 => {
                let other = (at + 1) % entries.len();
                entries.swap(at, other);
                (1..).zip(entries.iter_mut()).for_each(|(number, entry)| entry.sequence = number);
            }
            16 => entries.insert(at, before[at].clone()),
            _ => {
                let mut forged = before[at].clone();
                forged.subject = text.to_owned();
                forged.sequence = entries.len() as u64 + 1;
                entries.push(forged);
            }
        }
        *entries != before
    }

    proptest! {
        #[test]
        fn a_chain_verifies_and_any_single_change_is_found(
            count in 1usize..12, what in 0u8..18, at in 0usize..12, text in "[a-z]{0,6}", unhashed in 0usize..6
        ) {
            // The last has a hash: what nothing hashed follows is bound by nothing.
            let (mut entries, head) = written(count, unhashed.min(count - 1));
            prop_assert_eq!(walk(&entries, head), Ok(()));
            prop_assume!(change(&mut entries, what, at, &text));
            prop_assert!(walk(&entries, head).is_err(), "{} at {}: {:?}", what, at, entries);
        }

        #[test]
        fn no_two_events_hash_alike(one in "[a-z ]{0,8}", other in "[a-z ]{0,8}", next in "[a-z ]{0,8}") {
            // Fields cannot flow into each other.
            let entry = |action: &str, subject: &str| {
                let entry = written(1, 0).0.remove(0);
                Entry { action: action.to_owned(), subject: subject.to_owned(), ..entry }
            };
            let (first, second) = (entry(&one, &next), entry(&other, &format!("{one}{next}")));
            prop_assume!(first != second);
            let hash = |entry: &Entry| key().link(chain(), Head::GENESIS.hash, entry);
            prop_assert_ne!(hash(&first), hash(&second));
        }
    }

    #[test]
    fn a_chain_is_one_chains_and_one_servers() {
        let (entries, head) = written(3, 0);
        let other = Chain::Work(TenantId::generate(Timestamp::from_seconds(1), [2; 10]));
        let (key, foreign) = (key(), ChainKey::new(&Pepper::new([4; 32])));
        for (key, chain) in [(&key, other), (&key, Chain::Operator), (&foreign, chain())] {
            assert!(Walker::whole(key, chain, head).step(&entries[0]).is_err());
        }
        assert_eq!(format!("{key:?}"), "ChainKey(…)");
    }

    #[test]
    fn what_lies_beyond_the_head_must_be_linked_to_it() {
        let (entries, _) = written(5, 0);
        let key = key();
        let mut walker = Walker::beyond(&key, chain(), entries[2].head());
        assert_eq!(walker.step(&entries[3]).and_then(|()| walker.step(&entries[4])), Ok(()));
        assert_eq!(walker.at(), entries[4].head());
        let mut walker = Walker::beyond(&key, chain(), entries[1].head());
        assert_eq!(walker.step(&entries[3]).map_err(|broken| broken.fault), Err(Fault::Missing));
    }
}
