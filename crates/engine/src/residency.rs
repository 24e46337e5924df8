//! Which adapters are in memory.
//!
//! A budget in bytes; least recently used goes first; an adapter that a running sequence uses is pinned and stays.
//! One adapter is loaded at a time, for the oldest sequence that misses one (so there is never a second load of the
//! same digest). It is `staged` until it fits. A sequence takes all of its pins at once or none, so two sequences
//! can never wait for each other's pins, and the staged adapter keeps its claim until running sequences let go.

use std::collections::HashMap;
use std::sync::Arc;

use atelier_model::{Digest, ServedAdapter};

use crate::event::EngineError;
use crate::job::AdapterSet;

#[derive(Debug)]
struct Resident<A> {
    adapter: Arc<A>,
    bytes: usize,
    /// Running sequences that use it.
    pins: usize,
    /// When it was last acquired or placed.
    used: u64,
}

/// The adapters in memory. `A` is the adapter's type, so that tests need no weights.
#[derive(Debug)]
pub(crate) struct Residency<A = ServedAdapter> {
    bytes_max: usize,
    bytes: usize,
    resident: HashMap<Digest, Resident<A>>,
    loading: Option<Digest>,
    staged: Option<(Digest, Arc<A>, usize)>,
    clock: u64,
    loads_total: u64,
    evictions_total: u64,
}

/// What became of the staged adapter.
#[derive(Debug, PartialEq)]
pub(crate) enum Placed {
    /// Nothing was staged, or it is resident now (or nobody wants it and there is no room).
    Settled,
    /// Pinned adapters leave no room: it waits.
    NoRoom,
    /// The set that wants it is larger than the whole budget.
    TooLarge(AdapterSet, EngineError),
}

impl<A> Residency<A> {
    pub(crate) fn new(bytes_max: usize) -> Residency<A> {
        Residency {
            bytes_max,
            bytes: 0,
            resident: HashMap::new(),
            loading: None,
            staged: None,
            clock: 0,
            loads_total: 0,
            evictions_total: 0,
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.resident.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn loads_total(&self) -> u64 {
        self.loads_total
    }

    pub(crate) fn evictions_total(&self) -> u64 {
        self.evictions_total
    }

    /// Pins of all adapters together.
    pub(crate) fn pins(&self) -> usize {
        self.resident.values().map(|resident| resident.pins).sum()
    }

    /// The digest being read by the loader, if one is.
    pub(crate) fn loading(&self) -> Option<Digest> {
        self.loading
    }

    /// True while a loaded adapter waits for pinned ones to go: nothing that would pin more is admitted.
    pub(crate) fn is_full(&self) -> bool {
        self.staged.is_some()
    }

    /// Pins every adapter of the set, or none if one is missing.
    pub(crate) fn acquire(&mut self, set: &AdapterSet) -> Option<Vec<Arc<A>>> {
        if !set.digests().iter().all(|digest| self.resident.contains_key(digest)) {
            return None;
        }
        self.clock += 1;
        let clock = self.clock;
        let pin = |digest| {
            let resident = self.resident.get_mut(digest).expect("looked up above");
            resident.pins += 1;
            resident.used = clock;
            Arc::clone(&resident.adapter)
        };
        Some(set.digests().iter().map(pin).collect())
    }

    /// Lets go of a set that was acquired.
    pub(crate) fn release(&mut self, set: &AdapterSet) {
        for digest in set.digests() {
            let resident = self.resident.get_mut(digest).expect("a pinned adapter is never evicted");
            resident.pins = resident.pins.checked_sub(1).expect("released once for each acquisition");
        }
    }

    /// What the loader should read next: the first adapter that the sets, oldest first, miss. Nothing while another
    /// is being read or waits for room.
    pub(crate) fn next_load<'a>(&mut self, waiting: impl Iterator<Item = &'a AdapterSet>) -> Option<Digest> {
        if self.loading.is_some() || self.staged.is_some() {
            return None;
        }
        let mut missing = waiting.flat_map(|set| set.digests()).filter(|digest| !self.resident.contains_key(digest));
        self.loading = missing.next().copied();
        self.loading
    }

    /// Takes what the loader has read.
    pub(crate) fn loaded(&mut self, digest: Digest, adapter: A, bytes: usize) {
        debug_assert_eq!(self.loading, Some(digest), "one load at a time");
        self.loading = None;
        self.loads_total += 1;
        self.staged = Some((digest, Arc::new(adapter), bytes));
    }

    /// The loader could not read it.
    pub(crate) fn load_failed(&mut self, digest: Digest) {
        debug_assert_eq!(self.loading, Some(digest), "one load at a time");
        self.loading = None;
    }

    /// Makes the staged adapter resident if there is room or unpinned ones can give way. `waiting`: the sets of
    /// waiting sequences, oldest first.
    pub(crate) fn place<'a>(&mut self, waiting: impl Iterator<Item = &'a AdapterSet>) -> Placed {
        let Some((digest, adapter, bytes)) = self.staged.take() else { return Placed::Settled };
        let mut waiting = waiting.filter(|set| set.digests().contains(&digest));
        let wanted = waiting.next();
        let companions = wanted.map_or(&[][..], AdapterSet::digests);
        let set_bytes = bytes + self.bytes_of(companions);
        if set_bytes > self.bytes_max {
            let error = EngineError::AdapterTooLarge { bytes: set_bytes, bytes_max: self.bytes_max };
            return Placed::TooLarge(wanted.cloned().unwrap_or_default(), error);
        }
        while self.bytes + bytes > self.bytes_max {
            if !self.evict_one(companions) {
                if wanted.is_none() {
                    return Placed::Settled;
                }
                self.staged = Some((digest, adapter, bytes));
                return Placed::NoRoom;
            }
        }
        self.clock += 1;
        self.bytes += bytes;
        self.resident.insert(digest, Resident { adapter, bytes, pins: 0, used: self.clock });
        Placed::Settled
    }

    fn bytes_of(&self, digests: &[Digest]) -> usize {
        digests.iter().filter_map(|digest| self.resident.get(digest)).map(|resident| resident.bytes).sum()
    }

    /// Drops the least recently used adapter that is neither pinned nor kept. False if there is none.
    fn evict_one(&mut self, kept: &[Digest]) -> bool {
        let droppable = self.resident.iter().filter(|(digest, entry)| entry.pins == 0 && !kept.contains(digest));
        let Some(digest) = droppable.min_by_key(|(_, entry)| entry.used).map(|(digest, _)| *digest) else {
            return false;
        };
        let dropped = self.resident.remove(&digest).expect("found above");
        self.bytes -= dropped.bytes;
        self.evictions_total += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(byte: u8) -> Digest {
        Digest([byte; 32])
    }

    fn set(bytes: &[u8]) -> AdapterSet {
        AdapterSet::of(&bytes.iter().map(|byte| digest(*byte)).collect::<Vec<_>>())
    }

    /// Loads what the waiting sets miss until nothing more happens; every adapter is 10 bytes.
    fn load_all(residency: &mut Residency<u8>, waiting: &[AdapterSet]) -> (Vec<u8>, Placed) {
        let mut loaded = Vec::new();
        loop {
            let placed = residency.place(waiting.iter());
            if placed != Placed::Settled {
                return (loaded, placed);
            }
            let Some(next) = residency.next_load(waiting.iter()) else { return (loaded, Placed::Settled) };
            assert_eq!(residency.next_load(waiting.iter()), None, "single flight");
            loaded.push(next.0[0]);
            residency.loaded(next, next.0[0], 10);
        }
    }

    #[test]
    fn the_least_recently_used_unpinned_gives_way() {
        let mut residency = Residency::new(20);
        assert_eq!(load_all(&mut residency, &[set(&[1]), set(&[2])]), (vec![1, 2], Placed::Settled));
        residency.acquire(&set(&[1])).expect("resident");
        assert_eq!(load_all(&mut residency, &[set(&[3])]), (vec![3], Placed::Settled));
        assert!(residency.acquire(&set(&[2])).is_none(), "2 gave way, 1 was pinned");
        assert_eq!((residency.count(), residency.bytes()), (2, 20));
    }

    #[test]
    fn what_does_not_fit_waits_for_pins_and_then_comes_in() {
        let mut residency = Residency::new(20);
        load_all(&mut residency, &[set(&[1, 2])]);
        residency.acquire(&set(&[1, 2])).expect("resident");
        assert_eq!(load_all(&mut residency, &[set(&[3])]), (vec![3], Placed::NoRoom));
        assert!(residency.is_full());
        residency.release(&set(&[1, 2]));
        assert_eq!(load_all(&mut residency, &[set(&[3])]), (vec![], Placed::Settled));
        assert!(residency.acquire(&set(&[3])).is_some());
    }

    #[test]
    fn a_set_keeps_its_first_adapter_while_the_second_comes_in() {
        let mut residency = Residency::new(20);
        load_all(&mut residency, &[set(&[1])]);
        load_all(&mut residency, &[set(&[2])]);
        // 1 is the least recently used, but the waiting set needs it beside 3.
        assert_eq!(load_all(&mut residency, &[set(&[1, 3])]), (vec![3], Placed::Settled));
        assert_eq!(residency.acquire(&set(&[1, 3])).map(|adapters| adapters.len()), Some(2));
    }

    #[test]
    fn a_set_beyond_the_budget_is_refused_not_waited_for() {
        let mut residency = Residency::new(15);
        let (loaded, placed) = load_all(&mut residency, &[set(&[1, 2])]);
        assert_eq!(loaded, [1, 2]);
        assert!(matches!(placed, Placed::TooLarge(refused, _) if refused == set(&[1, 2])));
        assert!(!residency.is_full());
    }

    #[test]
    fn a_load_that_nobody_waits_for_any_more_is_kept_only_if_there_is_room() {
        let mut residency = Residency::new(10);
        let waiting = [set(&[1])];
        load_all(&mut residency, &waiting);
        residency.acquire(&waiting[0]).expect("resident");
        let other = [set(&[2])];
        let next = residency.next_load(other.iter()).expect("2 is missing");
        residency.loaded(next, 2, 10);
        assert_eq!(residency.place([].iter()), Placed::Settled);
        assert!(!residency.is_full());
        assert!(residency.acquire(&set(&[2])).is_none());
    }
}
