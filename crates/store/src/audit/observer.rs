//! What the policy answers and nothing else would record: refusals of callers who showed a key, and what an operator
//! looks at in a tenant's place. It is noted without waiting and written by one task, into the chain of whoever's key it
//! was or of the tenant that was looked at.
//!
//! Whoever asks again and again is noted once a minute for each action, with how often it was; how many rows that makes
//! is bounded, whatever is sent, and one tenant's many keys do not use up the room of others. Notes that wait when the
//! process dies are lost.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use atelier_access::{Action, Caller, Witness};
use atelier_domain::limits::{AUDIT_NOTE_INTERVAL, AUDIT_NOTES_MAX, AUDIT_NOTES_PER_TENANT_MAX, AUDIT_NOTES_QUEUE_MAX};
use atelier_domain::{Clock, KeyId, TenantId, Timestamp};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::chain::{Chain, ChainKey};
use super::events::{ACT_FOR, REFUSE};
use super::{Actor, Permit, append};
use crate::error::StoreError;
use crate::sql::{Database, Scope};

/// The handle of the task; a caller's witness.
#[derive(Debug)]
pub(crate) struct Observer {
    clock: Arc<dyn Clock>,
    queue: mpsc::Sender<Entry>,
    noted: Mutex<HashMap<Occasion, Noted>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Occasion {
    what: What,
    key: Option<KeyId>,
    tenant: Option<TenantId>,
    action: Action,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum What {
    Refused,
    Acted,
}

/// An occasion that was written, and how often it came again since.
#[derive(Debug)]
struct Noted {
    written_at: Timestamp,
    since: u64,
    actor: Actor,
}

#[derive(Debug)]
enum Entry {
    Note(Note),
    Close,
}

/// What is to be written.
#[derive(Debug)]
struct Note {
    at: Timestamp,
    occasion: Occasion,
    actor: Actor,
    times: u64,
}

impl Observer {
    pub(crate) fn start(control: Database, key: ChainKey, clock: Arc<dyn Clock>) -> Arc<Self> {
        let (queue, entries) = mpsc::channel(AUDIT_NOTES_QUEUE_MAX);
        let writer = tokio::spawn(write(control, key, entries));
        Arc::new(Self { clock, queue, noted: Mutex::default(), writer: Mutex::new(Some(writer)) })
    }

    /// What a caller holds of it: nothing that keeps a store open.
    pub(crate) fn witness(self: &Arc<Self>) -> Weak<dyn Witness> {
        let observer: Weak<Self> = Arc::downgrade(self);
        observer
    }

    /// Writes what is noted, counts included, and ends the task.
    pub(crate) async fn close(&self) {
        let Some(writer) = self.writer.lock().take() else { return };
        let at = self.clock.now();
        let counted: Vec<(Occasion, Noted)> = self.noted.lock().drain().filter(|(_, noted)| noted.since > 0).collect();
        for (occasion, Noted { since, actor, .. }) in counted {
            // Fails only when the writer is gone already.
            let _ = self.queue.send(Entry::Note(Note { at, occasion, actor, times: since })).await;
        }
        let _ = self.queue.send(Entry::Close).await;
        let _ = writer.await;
    }

    fn note(&self, what: What, caller: &Caller, action: Action) {
        let (at, actor) = (self.clock.now(), Actor::of(caller));
        let occasion = Occasion { what, key: caller.key(), tenant: caller.tenant(), action };
        let Some(times) = self.times(occasion, &actor, at) else { return };
        self.send(Note { at, occasion, actor, times });
    }

    /// Makes room, and writes down what was only counted.
    fn forget_old(&self, noted: &mut HashMap<Occasion, Noted>, at: Timestamp) {
        let is_old = |known: &Noted| at.since(known.written_at) >= AUDIT_NOTE_INTERVAL;
        for (occasion, Noted { since, actor, .. }) in noted.extract_if(|_, known| is_old(known)) {
            if since > 0 {
                self.send(Note { at, occasion, actor, times: since });
            }
        }
    }

    fn send(&self, note: Note) {
        let action = note.occasion.action.as_str();
        if self.queue.try_send(Entry::Note(note)).is_err() {
            tracing::warn!(action, "a note for the audit trail found no room");
        }
    }

    /// How many times to write down now; none while it is only counted, or while there are too many of them.
    fn times(&self, occasion: Occasion, actor: &Actor, at: Timestamp) -> Option<u64> {
        let mut noted = self.noted.lock();
        if let Some(known) = noted.get_mut(&occasion) {
            known.since += 1;
            if at.since(known.written_at) < AUDIT_NOTE_INTERVAL {
                return None;
            }
            known.written_at = at;
            return Some(std::mem::take(&mut known.since));
        }
        let of_tenant =
            |noted: &HashMap<Occasion, Noted>| noted.keys().filter(|known| known.tenant == occasion.tenant).count();
        let is_full = |noted: &HashMap<Occasion, Noted>| {
            noted.len() >= AUDIT_NOTES_MAX || of_tenant(noted) >= AUDIT_NOTES_PER_TENANT_MAX
        };
        if is_full(&noted) {
            self.forget_old(&mut noted, at);
        }
        if is_full(&noted) {
            return None;
        }
        noted.insert(occasion, Noted { written_at: at, since: 0, actor: actor.clone() });
        Some(1)
    }
}

impl Witness for Observer {
    fn refused(&self, caller: &Caller, action: Action) {
        self.note(What::Refused, caller, action);
    }

    fn acted(&self, caller: &Caller, action: Action) {
        self.note(What::Acted, caller, action);
    }
}

async fn write(control: Database, key: ChainKey, mut entries: mpsc::Receiver<Entry>) {
    while let Some(Entry::Note(note)) = entries.recv().await {
        if let Err(error) = write_one(&control, &key, note).await {
            tracing::error!(error = &error as &dyn std::error::Error, "a note for the audit trail was not written");
        }
    }
}

async fn write_one(control: &Database, key: &ChainKey, note: Note) -> Result<(), StoreError> {
    let Note { at, occasion, actor, times } = note;
    let (chain, scope) = match occasion.tenant {
        Some(tenant) => (Chain::Administration(tenant), Scope::Tenant(tenant)),
        None => (Chain::Operator, Scope::Control),
    };
    let event = match occasion.what {
        What::Refused => REFUSE.of(occasion.action.as_str(), json!({"times": times})),
        What::Acted => ACT_FOR.of(occasion.action.as_str(), json!({"times": times})),
    };
    let mut transaction = control.in_scope(scope).begin().await?;
    let _recorded = append(&mut transaction, key, chain, at, actor, event).await?;
    transaction.commit(Permit(())).await
}
