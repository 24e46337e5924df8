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
