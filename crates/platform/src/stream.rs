//! A running completion: the engine's events of all choices, merged, metered and turned into the caller's.
//!
//! One detached task per request pumps. It goes on until the request is settled, whether or not anybody still reads.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use atelier_domain::{RequestId, Timestamp, TokenCounts, limits};
use atelier_engine::{CompletionJob, Event, FinishReason, GeneratedTokens, Generation, TokenLogprob};
use atelier_model::Model;
use atelier_store::Outcome;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream, SelectAll};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::completions::CompletionRequest;
use crate::error::PlatformError;
use crate::limits::Admission;
use crate::metering::Meter;
use crate::platform::Platform;
use crate::watch::{Leash, Watched};

/// A token with its log-probability.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprobText {
    /// The token's text.
    pub text: String,
    /// Natural logarithm of its probability; none for the first token of an echoed prompt.
    pub logprob: Option<f32>,
    /// The most likely tokens at this place.
    pub top: Vec<(String, f32)>,
}

/// The tokens of a whole request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of all prompts.
    pub prompt_tokens: u64,
    /// Generated, of all choices.
    pub completion_tokens: u64,
    /// Prompt tokens that the tenant's own prefix cache answered.
    pub cached_tokens: u64,
}

/// One step of a completion. After the last choice's `Finished` comes `Done`; after `Failed` comes nothing. Its text
/// does not print.
pub enum CompletionEvent {
    /// More text of a choice.
    Text {
        /// Which choice.
        index: u32,
        /// The text; may be empty when there are log-probabilities.
        text: String,
        /// When asked for.
        logprobs: Option<Vec<TokenLogprobText>>,
    },
    /// A choice has ended.
    Finished {
        /// Which choice.
        index: u32,
        /// Why.
        reason: FinishReason,
    },
    /// The request is settled.
    Done {
        /// What stands in the ledger.
        usage: Usage,
    },
    /// The request ended early.
    Failed(PlatformError),
}

impl fmt::Debug for CompletionEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text { index, text, .. } => write!(f, "Text({index}, {} bytes)", text.len()),
            Self::Finished { index, reason } => write!(f, "Finished({index}, {reason:?})"),
            Self::Done { usage } => write!(f, "Done({usage:?})"),
            Self::Failed(error) => write!(f, "Failed({error:?})"),
        }
    }
}

/// A running completion. Dropping it cancels the generation.
#[derive(Debug)]
pub struct CompletionStream {
    /// The request's id, also in the ledger.
    pub id: RequestId,
    /// When it was accepted.
    pub created: Timestamp,
    /// The model's name as it was asked for.
    pub model: String,
    events: mpsc::Receiver<CompletionEvent>,
    leash: Leash,
}

/// One choice before it runs.
#[derive(Debug)]
pub(crate) struct ChoicePlan {
    pub(crate) index: u32,
    pub(crate) prompt_index: usize,
    /// The prompt's text, if it shall come back.
    pub(crate) echo: Option<String>,
    pub(crate) job: CompletionJob,
}

impl CompletionStream {
    /// The next event; none after the last. Once the stream is cut from outside, what waits unread is not given any
    /// more: only how it ended.
    pub async fn next(&mut self) -> Option<CompletionEvent> {
        loop {
            let event = self.events.recv().await?;
            let is_last = matches!(event, CompletionEvent::Done { .. } | CompletionEvent::Failed(_));
            if is_last || !self.leash.has_ended() {
                return Some(event);
            }
        }
    }

    /// Starts the pump.
    pub(crate) fn start(
        platform: &Platform,
        (id, request): (RequestId, CompletionRequest),
        plans: Vec<ChoicePlan>,
        generations: Vec<Generation>,
        (meter, admission): (Meter, Admission),
        (watched, leash): (Watched, Leash),
    ) -> Self {
        let (sender, events) = mpsc::channel(limits::STREAM_EVENTS_MAX);
        let mut merged = SelectAll::new();
        let mut choices = Vec::new();
        for (place, (plan, generation)) in plans.into_iter().zip(generations).enumerate() {
            choices.push(Choice { plan, generated: generation.generated(), started: None });
            let events = stream::unfold(generation, |mut generation| async move {
                let event = generation.next().await?;
                Some((event, generation))
            });
            merged.push(events.map(move |event| (place, event)).boxed());
        }
        let pump = Pump {
            base: Arc::clone(platform.base()),
            cut: platform.cut(),
            leash: leash.clone(),
            choices,
            merged,
            pending: VecDeque::new(),
            sender,
            meter,
            _admission: admission,
            _watched: watched,
        };
        platform.tasks().spawn(pump.run());
        Self { id, created: platform.store().now(), model: request.model, events, leash }
    }
}

struct Choice {
    plan: ChoicePlan,
    generated: GeneratedTokens,
    /// Prompt tokens and how many of them were cached, once the engine has begun to read them.
    started: Option<(usize, usize)>,
}

struct Pump {
    base: Arc<Model>,
    /// Cancelled when the platform can wait no longer.
    cut: CancellationToken,
    /// Ends when the key is no longer good for it.
    leash: Leash,
    choices: Vec<Choice>,
    merged: SelectAll<BoxStream<'static, (usize, Event)>>,
    /// Translated and not yet taken by the client.
    pending: VecDeque<CompletionEvent>,
    sender: mpsc::Sender<CompletionEvent>,
    meter: Meter,
    _admission: Admission,
    _watched: Watched,
}

/// How the pumping ended.
enum End {
    Finished,
    ClientGone,
    Failed(PlatformError),
}

impl Pump {
    async fn run(mut self) {
        let end = self.pump().await;
        let Self { choices, merged, sender, meter, _admission, _watched, .. } = self;
        // Cancels whatever still runs; the counts are final once the engine has let go of it.
        drop(merged);
        for choice in &choices {
            choice.generated.clone().settled().await;
        }
        let counts = count(&choices);
        let outcome = match end {
            End::Finished => Outcome::Finished,
            End::ClientGone => Outcome::Disconnected,
            End::Failed(_) => Outcome::Failed,
        };
        let settled = meter.settle(counts, outcome).await;
        let last = match (end, settled) {
            (End::ClientGone, _) => return,
            (End::Failed(error), _) | (End::Finished, Err(error)) => CompletionEvent::Failed(error),
            (End::Finished, Ok(())) => CompletionEvent::Done {
                usage: Usage {
                    prompt_tokens: counts.input,
                    completion_tokens: counts.output,
                    cached_tokens: counts.input_cached,
                },
            },
        };
        // Settled already: a client that is gone by now misses nothing that it would be charged for twice.
        let _gone = sender.send(last).await.is_err();
    }

    async fn pump(&mut self) -> End {
        let mut tick = tokio::time::interval(limits::USAGE_CHECKPOINT_INTERVAL);
        let sender = self.sender.clone();
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = sender.closed() => return End::ClientGone,
                () = self.cut.cancelled() => return End::Failed(PlatformError::closing()),
                error = self.leash.ended() => return End::Failed(error),
                permit = sender.reserve(), if !self.pending.is_empty() => match (permit, self.pending.pop_front()) {
                    (Ok(permit), Some(event)) => permit.send(event),
                    _ => return End::ClientGone,
                },
                event = self.merged.next(), if self.pending.is_empty() => match event {
                    Some((place, event)) => {
                        if let Err(error) = self.translate(place, event) {
                            return End::Failed(error);
                        }
                    }
                    None => return End::Finished,
                },
                _ = tick.tick() => {}
            }
            if let Err(error) = self.meter.checkpoint(count(&self.choices)).await {
                return End::Failed(error);
            }
        }
    }

    fn translate(&mut self, place: usize, event: Event) -> Result<(), PlatformError> {
        let choice = &mut self.choices[place];
        let index = choice.plan.index;
        match event {
            Event::Started { prompt_tokens, cached_tokens } => {
                choice.started = Some((prompt_tokens, cached_tokens));
                // With log-probabilities the echo waits for those of the prompt.
                let echo = choice.plan.echo.take_if(|_| !choice.plan.job.prompt_logprobs);
                if let Some(text) = echo {
                    self.pending.push_back(CompletionEvent::Text { index, text, logprobs: None });
                }
            }
            Event::PromptLogprobs(logprobs) => {
                let text = choice.plan.echo.take().unwrap_or_default();
                let tokens = choice.plan.job.prompt.iter().zip(logprobs);
                let logprobs = tokens
                    .map(|(token, logprob)| match logprob {
                        Some(logprob) => logprob_text(&self.base, logprob),
                        None => TokenLogprobText {
                            text: self.base.tokenizer().token_text(*token),
                            logprob: None,
                            top: Vec::new(),
                        },
                    })
                    .collect();
                self.pending.push_back(CompletionEvent::Text { index, text, logprobs: Some(logprobs) });
            }
            Event::Token { text, logprob, .. } => {
                let logprobs = logprob.map(|logprob| vec![logprob_text(&self.base, logprob)]);
                if !text.is_empty() || logprobs.is_some() {
                    self.pending.push_back(CompletionEvent::Text { index, text, logprobs });
                }
            }
            Event::Finished { reason, text, .. } => {
                if !text.is_empty() {
                    self.pending.push_back(CompletionEvent::Text { index, text, logprobs: None });
                }
                self.pending.push_back(CompletionEvent::Finished { index, reason });
            }
            Event::Failed(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// A prompt counts once however many choices it has, as in OpenAI's usage; what was generated counts in full.
fn count(choices: &[Choice]) -> TokenCounts {
    let mut counts = TokenCounts::default();
    let mut counted = None;
    for choice in choices {
        counts.output += choice.generated.get() as u64;
        if let Some((prompt_tokens, cached_tokens)) = choice.started
            && counted != Some(choice.plan.prompt_index)
        {
            counted = Some(choice.plan.prompt_index);
            counts.input += prompt_tokens as u64;
            counts.input_cached += cached_tokens as u64;
        }
    }
    counts
}

fn logprob_text(base: &Model, logprob: TokenLogprob) -> TokenLogprobText {
    let text = |id| base.tokenizer().token_text(id);
    TokenLogprobText {
        text: text(logprob.id),
        logprob: Some(logprob.logprob),
        top: logprob.top.into_iter().map(|(id, logprob)| (text(id), logprob)).collect(),
    }
}
