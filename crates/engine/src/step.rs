//! One forward pass over rows of many sequences, and the tokens that follow from it.

use std::ops::Range;
use std::sync::Arc;

use atelier_model::{AdapterGroup, Batch, KvCache, Model, ModelError, Row, Scratch, ServedAdapter};
use parking_lot::Mutex;

use crate::event::{EngineError, TokenLogprob};
use crate::sample;
use crate::schedule::Share;
use crate::sequence::{Advance, Sampled, Sequence};

/// Logits of a step below which waking the other threads costs more than they save (about 50 µs of reading).
const PARALLEL_LOGITS_MIN: usize = 1 << 16;

/// The model with the memory that a step works in.
pub(crate) struct Stepper {
    model: Arc<Model>,
    cache: KvCache,
    scratch: Scratch,
    /// (rows whose logits are needed, vocabulary)
    logits: Vec<f32>,
}

/// What a row of logits is for.
#[derive(Clone, Copy, Debug)]
enum Use {
    /// The log probability of a prompt token that is known.
    Prompt { next: u32 },
    /// The choice of the token at `position`.
    Sample { position: u32 },
}

/// A row of logits: which of the shares it belongs to, and its use.
#[derive(Clone, Copy, Debug)]
struct LogitRow {
    share: usize,
    purpose: Use,
}

/// What came of a row of logits.
enum Outcome {
    Prompt(TokenLogprob),
    Sampled(Result<Sampled, EngineError>),
}

/// The rows of a step, ordered so that each adapter set's are together.
#[derive(Default)]
struct Plan<'a> {
    rows: Vec<Row>,
    tables: Vec<&'a [u32]>,
    groups: Vec<(Range<usize>, Vec<&'a ServedAdapter>)>,
    logits_for: Vec<usize>,
    logit_rows: Vec<LogitRow>,
}

impl Stepper {
    pub(crate) fn new(model: Arc<Model>, kv_blocks: usize) -> Stepper {
        let cache = model.new_kv_cache(kv_blocks);
        Stepper { model, cache, scratch: Scratch::new(), logits: Vec::new() }
    }

    /// Computes the shares' rows; `share.sequence` is an index into `slots`.
    pub(crate) fn run(&mut self, slots: &[Sequence], shares: &[Share]) -> Result<Vec<Advance>, ModelError> {
        let mut shares = shares.to_vec();
        shares.sort_by(|left, right| slots[left.sequence].adapters.cmp(&slots[right.sequence].adapters));
        let plan = Plan::of(slots, &shares);
        let groups: Vec<AdapterGroup<'_, _>> =
            plan.groups.iter().map(|(rows, adapters)| AdapterGroup { rows: rows.clone(), adapters }).collect();
        let batch = Batch { rows: &plan.rows, tables: &plan.tables, groups: &groups, logits_for: &plan.logits_for };
        self.model.forward(&mut self.cache, &mut self.scratch, &batch, &mut self.logits)?;
        let outcomes = self.read_logits(slots, &shares, &plan.logit_rows);
        Ok(sort_out(&shares, &plan.logit_rows, outcomes))
    }

    /// Samples and measures, row by row; on all threads where there is enough to do.
    fn read_logits(&self, slots: &[Sequence], shares: &[Share], logit_rows: &[LogitRow]) -> Vec<Outcome> {
        let vocab_size = self.model.config().vocab_size;
        let read = |index: usize| {
            let logits = &self.logits[index * vocab_size..(index + 1) * vocab_size];
            let sequence = &slots[shares[logit_rows[index].share].sequence];
            read_row(logits, sequence, logit_rows[index].purpose)
        };
        if self.logits.len() < PARALLEL_LOGITS_MIN {
            return (0..logit_rows.len()).map(read).collect();
        }
        let outcomes: Vec<Mutex<Option<Outcome>>> = logit_rows.iter().map(|_| Mutex::new(None)).collect();
        self.model.compute().parallel_for(logit_rows.len(), &|index| *outcomes[index].lock() = Some(read(index)));
        outcomes.into_iter().map(|outcome| outcome.into_inner().expect("every row was read")).collect()
    }
}

fn read_row(logits: &[f32], sequence: &Sequence, purpose: Use) -> Outcome {
    let top_count = usize::from(sequence.logprobs.unwrap_or(0));
    match purpose {
        Use::Prompt { next } => Outcome::Prompt(sample::token_logprob(logits, next, top_count)),
        Use::Sample { position } => {
            let chosen = sample::sample(logits, &sequence.sampling, position).ok_or(EngineError::NotFinite);
            Outcome::Sampled(chosen.map(|id| {
                let logprob = sequence.logprobs.map(|_| sample::token_logprob(logits, id, top_count));
                Sampled { id, logprob }
            }))
        }
    }
}

impl<'a> Plan<'a> {
    fn of(slots: &'a [Sequence], shares: &[Share]) -> Plan<'a> {
        let mut plan = Plan::default();
        let mut last: Option<&Sequence> = None;
        for (index, share) in shares.iter().enumerate() {
            let sequence = &slots[share.sequence];
            let first_row = plan.rows.len();
            plan.add_rows(index, sequence, share.rows);
            let adapters = sequence.pinned.as_deref().expect("only started sequences take part in steps");
            if adapters.is_empty() {
                continue;
            }
            match plan.groups.last_mut() {
                Some((rows, _)) if last.is_some_and(|last| last.adapters == sequence.adapters) => {
                    rows.end = plan.rows.len();
                }
                _ => {
                    let adapters = adapters.iter().map(Arc::as_ref).collect();
                    plan.groups.push((first_row..plan.rows.len(), adapters));
                }
            }
            last = Some(sequence);
        }
        plan
    }

    fn add_rows(&mut self, share: usize, sequence: &'a Sequence, count: usize) {
        let table = self.tables.len() as u32;
        self.tables.push(&sequence.table);
        for position in sequence.computed..sequence.computed + count {
            let row = self.rows.len();
            self.rows.push(Row { token: sequence.tokens[position], position: position as u32, table });
            let next = position + 1;
            let purpose = if next < sequence.tokens.len() {
                if !sequence.wants_prompt_logprobs() {
                    continue;
                }
                Use::Prompt { next: sequence.tokens[next] }
            } else if sequence.samples_after(count) {
                Use::Sample { position: next as u32 }
            } else {
                continue;
            };
            self.logits_for.push(row);
            self.logit_rows.push(LogitRow { share, purpose });
        }
    }
}

/// Gives each share its outcomes.
fn sort_out(shares: &[Share], logit_rows: &[LogitRow], outcomes: Vec<Outcome>) -> Vec<Advance> {
    let nothing_yet =
        |share: &Share| Advance { slot: share.sequence, rows: share.rows, prompt_logprobs: Vec::new(), sampled: None };
    let mut advances: Vec<Advance> = shares.iter().map(nothing_yet).collect();
    for (logit_row, outcome) in logit_rows.iter().zip(outcomes) {
        let advance = &mut advances[logit_row.share];
        match outcome {
            Outcome::Prompt(logprob) => advance.prompt_logprobs.push(logprob),
            Outcome::Sampled(sampled) => advance.sampled = Some(sampled),
        }
    }
    advances
}
