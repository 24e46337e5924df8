//! Who gets the next free slot.
//!
//! First come, first served. The seam is that of the virtual token counter (Sheng et al., OSDI 2024): work is
//! charged to the client that caused it, the next request is chosen by the queue alone, and a request that does not
//! fit is never skipped, since skipping would let small requests starve a large one for ever.

use std::collections::VecDeque;

/// One request in the queue.
#[derive(Debug)]
pub struct Ticket<T> {
    /// Whom the request's work is charged to; opaque.
    pub client: u64,
    /// The client's share relative to others; at least 1.
    pub weight: u32,
    /// The request.
    pub item: T,
}

/// Work done for a client, as the queue is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// Prompt tokens that were not found in the cache.
    Input(usize),
    /// Tokens generated.
    Output(usize),
    /// Bytes of adapter weights read for the client.
    AdapterLoad(usize),
}

/// The queue of requests without a slot.
#[derive(Debug)]
pub struct FairQueue<T> {
    waiting: VecDeque<Ticket<T>>,
}

impl<T> Default for FairQueue<T> {
    fn default() -> FairQueue<T> {
        FairQueue::new()
    }
}

impl<T> FairQueue<T> {
    /// An empty queue.
    pub fn new() -> FairQueue<T> {
        FairQueue { waiting: VecDeque::new() }
    }

    /// Requests in the queue.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// True without a request.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Adds a request. Its bound is the caller's: the engine refuses at submission what would not fit.
    pub fn push(&mut self, ticket: Ticket<T>) {
        self.waiting.push_back(ticket);
    }

    /// Takes the request whose turn it is, if `fits` says so; otherwise nothing, whatever else may fit.
    pub fn next_admissible(&mut self, fits: impl FnOnce(&T) -> bool) -> Option<Ticket<T>> {
        let head = self.waiting.front()?;
        if fits(&head.item) { self.waiting.pop_front() } else { None }
    }

    /// Notes work done for a client. Order of arrival ignores what work cost, so first-come keeps no account.
    pub fn charge(&mut self, _client: u64, _weight: u32, _charge: Charge) {}

    /// Takes out the requests that `gone` names; they were never served, so nothing was charged.
    pub fn cancel(&mut self, mut gone: impl FnMut(&T) -> bool) -> Vec<Ticket<T>> {
        if !self.waiting.iter().any(|ticket| gone(&ticket.item)) {
            return Vec::new();
        }
        let (cancelled, kept) = self.waiting.drain(..).partition(|ticket| gone(&ticket.item));
        self.waiting = kept;
        Vec::from(cancelled)
    }

    /// The requests in the order in which they would be admitted.
    pub fn iter(&self) -> impl Iterator<Item = &Ticket<T>> {
        self.waiting.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue_of(items: &[(u64, usize)]) -> FairQueue<usize> {
        let mut queue = FairQueue::new();
        for &(client, item) in items {
            queue.push(Ticket { client, weight: 1, item });
        }
        queue
    }

    #[test]
    fn admits_in_order_of_arrival_and_never_skips() {
        let mut queue = queue_of(&[(1, 10), (2, 99), (1, 5)]);
        let room = 50;
        let mut admitted = Vec::new();
        while let Some(ticket) = queue.next_admissible(|size| *size <= room) {
            admitted.push(ticket.item);
        }
        assert_eq!(admitted, [10], "the large request holds the small one behind it");
        assert_eq!(queue.len(), 2);
        assert_eq!(queue.next_admissible(|_| true).map(|ticket| ticket.item), Some(99));
    }

    #[test]
    fn cancel_takes_out_of_the_middle_and_keeps_the_order() {
        let mut queue = queue_of(&[(1, 1), (1, 2), (2, 3), (3, 4)]);
        let cancelled: Vec<usize> = queue.cancel(|item| item % 2 == 0).into_iter().map(|ticket| ticket.item).collect();
        assert_eq!(cancelled, [2, 4]);
        assert_eq!(queue.iter().map(|ticket| ticket.item).collect::<Vec<_>>(), [1, 3]);
    }
}
