//! What the engine answers, and the stream that carries it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use atelier_model::{Digest, ModelError};
use thiserror::Error;
use tokio::sync::{mpsc, watch};

use crate::mailbox::Mailbox;

/// Events of a request beside one for each token: started, prompt log probabilities, and the end.
pub(crate) const EVENTS_BESIDE_TOKENS: usize = 3;

/// A token's log probability under the model's own distribution (before temperature, top-k and top-p).
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub id: u32,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The most likely tokens at this place with theirs, most likely first.
    pub top: Vec<(u32, f32)>,
}

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// An end-of-text token or a stop string.
    Stop,
    /// `tokens_max` tokens were generated.
    Length,
}

/// Why a completion failed after it was accepted.
#[derive(Clone, Debug, Error)]
pub enum EngineError {
    /// The adapter source could not give an adapter.
    #[error("adapter {digest} could not be loaded: {message}")]
    AdapterLoad {
        /// The adapter.
        digest: Digest,
        /// What the source said.
        message: String,
    },
    /// The request's adapters are larger than the whole memory budget for adapters.
    #[error("the request's adapters take {bytes} bytes, more than the {bytes_max} that may be in memory at once")]
    AdapterTooLarge {
        /// Bytes of the set.
        bytes: usize,
        /// The budget.
        bytes_max: usize,
    },
    /// The logits hold no finite maximum: the weights of the base or of an adapter are broken.
    #[error("the model gave no finite logits: the weights of the base or of an adapter are broken")]
    NotFinite,
    /// The forward pass failed.
    #[error("the forward pass failed")]
    Model(#[source] Arc<ModelError>),
    /// The engine stopped before the completion ended.
    #[error("the engine has stopped")]
    Stopped,
}

impl PartialEq for EngineError {
    fn eq(&self, other: &EngineError) -> bool {
        self.to_string() == other.to_string()
    }
}

/// One step of a completion's story: at most one `Started`, then at most one `PromptLogprobs`, then `Token`s, then
/// exactly one of `Finished` and `Failed`.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The sequence has its slot, blocks and adapters; its prompt is read from the next step on.
    Started {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Of these, tokens whose keys and values came from the cache.
        cached_tokens: usize,
    },
    /// Of each prompt token, the first of which has none.
    PromptLogprobs(Vec<Option<TokenLogprob>>),
    /// One generated token. An end-of-text token ends the completion and is not itself reported or counted.
    Token {
        /// The token.
        id: u32,
        /// Text that is certain now; empty while a stop string or a character is incomplete.
        text: String,
        /// Present if the job asked for it.
        logprob: Option<TokenLogprob>,
    },
    /// The end.
    Finished {
        /// Why.
        reason: FinishReason,
        /// Text that had been held back.
        text: String,
        /// `Token` events that there were.
        completion_tokens: usize,
    },
    /// The end, early.
    Failed(EngineError),
}

/// Tokens generated for one request, readable also after its [`Generation`] is gone.
#[derive(Clone, Debug)]
pub struct GeneratedTokens {
    count: Arc<AtomicUsize>,
    settled: watch::Receiver<bool>,
}

impl GeneratedTokens {
    /// Tokens generated so far.
    pub fn get(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Waits until the request has left the engine; gives the final count.
    pub async fn settled(mut self) -> usize {
        // An error means that the engine is gone, which settles the count as well.
        let _gone = self.settled.wait_for(|settled| *settled).await.is_err();
        self.get()
    }

    /// True once the count is final.
    pub fn is_settled(&self) -> bool {
        *self.settled.borrow()
    }
}

/// The engine's end of a generation.
#[derive(Debug)]
pub(crate) struct Reporter {
    events: mpsc::Sender<Event>,
    count: Arc<AtomicUsize>,
    settled: watch::Sender<bool>,
}

impl Reporter {
    /// True once nobody listens any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.events.is_closed()
    }

    /// Sends without waiting. The channel has room for every event that a request can have, so it is never full; a
    /// closed one is noticed by the next step's sweep.
    pub(crate) fn send(&self, event: Event) {
        if matches!(event, Event::Token { .. }) {
            self.count.fetch_add(1, Ordering::Release);
        }
        if let Err(mpsc::error::TrySendError::Full(_)) = self.events.try_send(event) {
            unreachable!("the channel's capacity is the most events a request can have");
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.settled.send_replace(true);
    }
}

/// A running completion. Dropping it cancels: its slot and blocks are free within one step.
#[derive(Debug)]
pub struct Generation {
    events: mpsc::Receiver<Event>,
    generated: GeneratedTokens,
    mailbox: Mailbox,
    ended: bool,
}

/// Both ends of a generation of at most `tokens_max` tokens.
pub(crate) fn generation(tokens_max: usize, mailbox: Mailbox) -> (Reporter, Generation) {
    let (sender, events) = mpsc::channel(tokens_max + EVENTS_BESIDE_TOKENS);
    let count = Arc::new(AtomicUsize::new(0));
    let (settle, settled) = watch::channel(false);
    let generated = GeneratedTokens { count: Arc::clone(&count), settled };
    (Reporter { events: sender, count, settled: settle }, Generation { events, generated, mailbox, ended: false })
}

impl Generation {
    /// The next event; `None` after the last.
    pub async fn next(&mut self) -> Option<Event> {
        let event = self.events.recv().await;
        self.story(event)
    }

    /// As [`Generation::next`], for a thread outside of any runtime.
    pub fn blocking_next(&mut self) -> Option<Event> {
        let event = self.events.blocking_recv();
        self.story(event)
    }

    /// The next event if it is there already.
    pub fn try_next(&mut self) -> Option<Event> {
        match self.events.try_recv() {
            Ok(event) => self.story(Some(event)),
            Err(mpsc::error::TryRecvError::Empty) => None,
            Err(mpsc::error::TryRecvError::Disconnected) => self.story(None),
        }
    }

    /// The count of generated tokens, for metering.
    pub fn generated(&self) -> GeneratedTokens {
        self.generated.clone()
    }

    /// Makes sure that every story has an end, also when the engine went away.
    fn story(&mut self, event: Option<Event>) -> Option<Event> {
        let event = match event {
            None if self.ended => return None,
            None => Event::Failed(EngineError::Stopped),
            Some(event) => event,
        };
        self.ended |= matches!(event, Event::Finished { .. } | Event::Failed(_));
        Some(event)
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        // Closed first: when the loop wakes, it must see that nobody listens.
        self.events.close();
        if !self.ended {
            self.mailbox.wake();
        }
    }
}
