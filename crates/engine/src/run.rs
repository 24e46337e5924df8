//! The loop. All decisions are here: who is admitted, started, advanced and let go. Its parts are leaves.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use atelier_model::{Config, Digest, KV_BLOCK_TOKENS, Model, ServedAdapter, Tokenizer};

use crate::event::{EngineError, Event};
use crate::handle::{Engine, Shared};
use crate::job::AdapterSet;
use crate::kv::{BlockKey, BlockPool, Prefix};
use crate::loader::{AdapterSource, Loader};
use crate::mailbox::{self, Command, Inbox, Submission};
use crate::options::EngineOptions;
use crate::queue::{Charge, FairQueue, Ticket};
use crate::residency::{Placed, Residency};
use crate::schedule::{self, Demand, Share};
use crate::sequence::{Progress, Sequence};
use crate::stats::EngineStats;
use crate::step::Stepper;

/// Special tokens that, beside the configuration's own, end a completion: in code models each begins something that
/// is no longer the completion. Names that a tokenizer does not have are passed over.
const END_TOKENS: [&str; 7] = [
    "<|endoftext|>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
];

/// What one step did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepReport {
    /// Requests that got a slot.
    pub admitted: usize,
    /// Sequences that got their adapters and began.
    pub started: usize,
    /// Prompt tokens computed.
    pub prefill_rows: usize,
    /// Decode rows computed.
    pub decode_rows: usize,
    /// Tokens generated.
    pub tokens: usize,
    /// Sequences that ended.
    pub finished: usize,
    /// Sequences that ended with an error.
    pub failed: usize,
    /// Requests given up because nobody listened any more.
    pub cancelled: usize,
    /// The loop was told to stop: nothing happens any more.
    pub stopped: bool,
}

impl StepReport {
    /// True if nothing was computed: until something comes into the mailbox, nothing will be.
    pub fn is_idle(&self) -> bool {
        self.prefill_rows + self.decode_rows == 0
    }
}

/// The engine without its thread: each call of [`EngineLoop::step`] is one turn. [`Engine::start`] runs it.
pub struct EngineLoop {
    model: Arc<Model>,
    options: EngineOptions,
    /// Tokens that end a completion.
    ends: Vec<u32>,
    inbox: Inbox,
    loader: Loader,
    queue: FairQueue<Submission>,
    /// Sequences with a slot, in order of admission.
    slots: Vec<Sequence>,
    pool: BlockPool,
    residency: Residency,
    stepper: Stepper,
    shared: Arc<Shared>,
    /// The counts that only grow; the rest is read off when published.
    totals: EngineStats,
    stopped: bool,
}

impl EngineLoop {
    /// A loop and the handle that feeds it.
    pub fn new(model: Arc<Model>, source: Arc<dyn AdapterSource>, options: EngineOptions) -> (EngineLoop, Engine) {
        let options = options.made_workable();
        let (mailbox, inbox) = mailbox::mailbox(options.queue_length_max);
        let shared = Arc::new(Shared::default());
        let engine = Engine::new(&model, &options, mailbox.clone(), Arc::clone(&shared));
        let mut engine_loop = EngineLoop {
            ends: if options.ignore_end_tokens { Vec::new() } else { end_tokens(&model) },
            inbox,
            loader: Loader::start(source, mailbox),
            queue: FairQueue::new(),
            slots: Vec::with_capacity(options.slots),
            pool: BlockPool::new(options.kv_blocks),
            residency: Residency::new(options.adapter_bytes_max),
            stepper: Stepper::new(Arc::clone(&model), options.kv_blocks),
            shared,
            totals: EngineStats::default(),
            stopped: false,
            model,
            options,
        };
        engine_loop.publish_stats();
        (engine_loop, engine)
    }

    /// Steps until told to stop, sleeping while there is nothing to do.
    pub(crate) fn run(mut self) {
        loop {
            let report = self.step();
            if report.stopped {
                return;
            }
            if report.is_idle() {
                self.wait();
            }
        }
    }

    /// Sleeps until something comes into the mailbox; the next step takes it in.
    pub fn wait(&mut self) {
        self.inbox.wait();
    }

    /// One turn: news, cancellations, admissions, adapters, one forward pass, and what follows from it.
    pub fn step(&mut self) -> StepReport {
        let mut report = StepReport::default();
        while let Some(command) = self.inbox.take() {
            report.failed += self.take_in(command);
        }
        if self.stopped {
            self.give_up_everything();
            report.stopped = true;
        } else {
            self.drop_cancelled(&mut report);
            self.place_adapter(&mut report);
            self.admit(&mut report);
            self.start_waiting(&mut report);
            self.order_adapter();
            self.share_prefixes();
            self.advance(&mut report);
        }
        self.publish_stats();
        report
    }

    /// Takes in one piece of news; gives the number of sequences that it made fail.
    fn take_in(&mut self, command: Command) -> usize {
        match command {
            Command::Submit(submission) => {
                let (client, weight) = (submission.job.client, submission.job.weight);
                self.queue.push(Ticket { client, weight, item: *submission });
                0
            }
            Command::Loaded(digest, result) => self.take_adapter(digest, result),
            Command::Wake => 0,
            Command::Shutdown => {
                self.stopped = true;
                0
            }
        }
    }

    fn take_adapter(&mut self, digest: Digest, result: Result<Box<ServedAdapter>, String>) -> usize {
        let fitting = result.and_then(|adapter| match shape_fault(&adapter, self.model.config()) {
            Some(fault) => Err(fault),
            None => Ok(adapter),
        });
        match fitting {
            Ok(adapter) => {
                let bytes = adapter.bytes();
                let cause = waiting(&self.slots).find(|sequence| sequence.adapters.digests().contains(&digest));
                if let Some(&Sequence { client, weight, .. }) = cause {
                    self.queue.charge(client, weight, Charge::AdapterLoad(bytes));
                }
                self.residency.loaded(digest, *adapter, bytes);
                0
            }
            Err(message) => {
                self.residency.load_failed(digest);
                let needs = |set: &AdapterSet| set.digests().contains(&digest);
                self.fail_waiting(needs, &EngineError::AdapterLoad { digest, message })
            }
        }
    }

    /// Fails the waiting sequences whose set is named; gives their number.
    fn fail_waiting(&mut self, named: impl Fn(&AdapterSet) -> bool, error: &EngineError) -> usize {
        let (pool, mut failed) = (&mut self.pool, 0);
        self.slots.retain_mut(|sequence| {
            let fails = sequence.pinned.is_none() && named(&sequence.adapters);
            if fails {
                sequence.fail(error.clone());
                pool.release(&sequence.table);
                failed += 1;
            }
            !fails
        });
        failed
    }

    /// Gives up every request that nobody listens to, in a slot or not.
    fn drop_cancelled(&mut self, report: &mut StepReport) {
        let unslotted = self.queue.cancel(|submission| submission.reporter.is_cancelled()).len();
        self.shared.queued.fetch_sub(unslotted, Ordering::AcqRel);
        let (pool, residency) = (&mut self.pool, &mut self.residency);
        let before = self.slots.len();
        self.slots.retain(|sequence| {
            let kept = !sequence.is_cancelled();
            if !kept {
                let_go(sequence, pool, residency);
            }
            kept
        });
        report.cancelled = unslotted + before - self.slots.len();
    }

    /// Makes a loaded adapter resident if it fits.
    fn place_adapter(&mut self, report: &mut StepReport) {
        let placed = self.residency.place(waiting(&self.slots).map(|sequence| &sequence.adapters));
        if let Placed::TooLarge(set, error) = placed {
            report.failed += self.fail_waiting(|waiting| *waiting == set, &error);
        }
    }

    /// Gives slots and blocks to queued requests, in the queue's order, as long as the next one fits.
    fn admit(&mut self, report: &mut StepReport) {
        while self.slots.len() < self.options.slots {
            let mut reserved = None;
            let (pool, residency, base) = (&mut self.pool, &self.residency, self.model.digest());
            let prefix_cache = self.options.prefix_cache;
            let ticket = self.queue.next_admissible(|submission| {
                if residency.is_full() && !submission.job.adapters.is_empty() {
                    return false;
                }
                let prefix = find_prefix(pool, base, submission, prefix_cache);
                let blocks = submission.job.positions_max().div_ceil(KV_BLOCK_TOKENS);
                if !pool.can_reserve(&prefix, blocks) {
                    return false;
                }
                let table = pool.reserve(&prefix, blocks);
                reserved = Some((prefix, table));
                true
            });
            let (Some(ticket), Some((prefix, table))) = (ticket, reserved) else { return };
            self.shared.queued.fetch_sub(1, Ordering::AcqRel);
            let sequence = Sequence::new(ticket.item, self.model.tokenizer(), &prefix, table);
            let uncached = sequence.prompt_tokens - sequence.computed;
            self.queue.charge(ticket.client, ticket.weight, Charge::Input(uncached));
            self.totals.prompt_tokens_total += sequence.prompt_tokens as u64;
            self.totals.cached_tokens_total += sequence.computed as u64;
            self.slots.push(sequence);
            report.admitted += 1;
        }
    }

    /// Starts the sequences whose adapters are all in memory.
    fn start_waiting(&mut self, report: &mut StepReport) {
        for sequence in self.slots.iter_mut().filter(|sequence| sequence.pinned.is_none()) {
            if let Some(adapters) = self.residency.acquire(&sequence.adapters) {
                sequence.start(adapters);
                report.started += 1;
            }
        }
    }

    /// Has the loader read the next adapter that a sequence waits for.
    fn order_adapter(&mut self) {
        let waiting = waiting(&self.slots).map(|sequence| &sequence.adapters);
        if let Some(digest) = self.residency.next_load(waiting) {
            self.loader.order(digest);
        }
    }

    /// Lets sequences that read their prompts take over what others have computed of the same beginning.
    fn share_prefixes(&mut self) {
        if self.options.prefix_cache {
            for sequence in self.slots.iter_mut().filter(|sequence| sequence.pinned.is_some()) {
                self.totals.cached_tokens_total += sequence.adopt_computed_blocks(&mut self.pool) as u64;
            }
        }
    }

    /// One forward pass for every started sequence, and what follows from it.
    fn advance(&mut self, report: &mut StepReport) {
        let started: Vec<usize> = (0..self.slots.len()).filter(|slot| self.slots[*slot].pinned.is_some()).collect();
        let demands: Vec<Demand> = started.iter().map(|slot| self.slots[*slot].demand()).collect();
        let shares = schedule::share_rows(&demands, self.options.step_token_budget, self.options.prefill_chunk);
        let shares: Vec<Share> =
            shares.iter().map(|share| Share { sequence: started[share.sequence], rows: share.rows }).collect();
        if shares.is_empty() {
            return;
        }
        for share in &shares {
            let prefilling = self.slots[share.sequence].is_prefilling();
            *(if prefilling { &mut report.prefill_rows } else { &mut report.decode_rows }) += share.rows;
        }
        self.totals.steps_total += 1;
        let mut progress = vec![Progress::Continues; self.slots.len()];
        match self.stepper.run(&self.slots, &shares) {
            Ok(advances) => {
                for advance in advances {
                    let slot = advance.slot;
                    progress[slot] = self.apply(advance, report);
                }
            }
            Err(error) => {
                // Every job was checked, so this is a defect of ours; no sequence of the batch can be trusted.
                tracing::error!(%error, "the forward pass failed");
                let error = Arc::new(error);
                for share in &shares {
                    let failed = EngineError::Model(Arc::clone(&error));
                    progress[share.sequence] = self.slots[share.sequence].fail(failed);
                }
            }
        }
        self.let_go_of_ended(&progress, report);
    }

    /// Gives one sequence its part of the step.
    fn apply(&mut self, advance: crate::sequence::Advance, report: &mut StepReport) -> Progress {
        let sequence = &mut self.slots[advance.slot];
        let generated_before = sequence.generated();
        let pool = self.options.prefix_cache.then_some(&mut self.pool);
        let progress = sequence.advance(advance, pool, &self.ends);
        let generated = sequence.generated() - generated_before;
        report.tokens += generated;
        self.totals.generated_tokens_total += generated as u64;
        self.queue.charge(sequence.client, sequence.weight, Charge::Output(generated));
        progress
    }

    /// Frees the slots, blocks and adapters of sequences that have ended.
    fn let_go_of_ended(&mut self, progress: &[Progress], report: &mut StepReport) {
        let (pool, residency) = (&mut self.pool, &mut self.residency);
        let mut progress = progress.iter();
        self.slots.retain(|sequence| {
            let ended = *progress.next().expect("one for each slot");
            report.finished += usize::from(ended == Progress::Finished);
            report.failed += usize::from(ended == Progress::Failed);
            if ended != Progress::Continues {
                let_go(sequence, pool, residency);
            }
            ended == Progress::Continues
        });
    }

    /// Ends every request, in a slot or not.
    fn give_up_everything(&mut self) {
        for mut sequence in self.slots.drain(..) {
            sequence.fail(EngineError::Stopped);
            let_go(&sequence, &mut self.pool, &mut self.residency);
        }
        let unslotted = self.queue.cancel(|_| true);
        self.shared.queued.fetch_sub(unslotted.len(), Ordering::AcqRel);
        for ticket in unslotted {
            ticket.item.reporter.send(Event::Failed(EngineError::Stopped));
        }
    }

    fn publish_stats(&mut self) {
        let waiting_for_adapter = waiting(&self.slots).count();
        let stats = EngineStats {
            running: self.slots.len() - waiting_for_adapter,
            waiting_for_adapter,
            queued: self.queue.len(),
            kv_blocks_total: self.pool.total(),
            kv_blocks_free: self.pool.free(),
            kv_blocks_cached: self.pool.cached(),
            adapters_resident: self.residency.count(),
            adapter_bytes: self.residency.bytes(),
            adapter_loads_total: self.residency.loads_total(),
            adapter_evictions_total: self.residency.evictions_total(),
            ..self.totals.clone()
        };
        *self.shared.stats.lock() = stats;
    }

    /// Checks that every block and every pin is accounted for by a sequence in a slot.
    ///
    /// # Errors
    /// Says what does not balance.
    pub fn audit(&self) -> Result<(), String> {
        self.pool.audit(self.slots.iter().map(|sequence| sequence.table.as_slice()))?;
        let pins: usize = self.slots.iter().filter_map(|sequence| sequence.pinned.as_ref()).map(Vec::len).sum();
        if pins != self.residency.pins() {
            return Err(format!("{} pins counted, {pins} found", self.residency.pins()));
        }
        if self.residency.bytes() > self.options.adapter_bytes_max {
            return Err(format!("{} bytes of adapters, over the budget", self.residency.bytes()));
        }
        Ok(())
    }
}

/// Sequences that wait for an adapter, oldest first.
fn waiting(slots: &[Sequence]) -> impl Iterator<Item = &Sequence> {
    slots.iter().filter(|sequence| sequence.pinned.is_none())
}

/// Gives back what a sequence holds.
fn let_go(sequence: &Sequence, pool: &mut BlockPool, residency: &mut Residency) {
    pool.release(&sequence.table);
    if sequence.pinned.is_some() {
        residency.release(&sequence.adapters);
    }
}

/// The computed blocks that a request can begin with. At least one token is left to compute, since the last one's
/// logits are needed; with prompt log probabilities, all are.
fn find_prefix(pool: &BlockPool, base: Digest, submission: &Submission, prefix_cache: bool) -> Prefix {
    let job = &submission.job;
    let root = BlockKey::root(base, &job.adapters, &job.cache_salt);
    if !prefix_cache || job.prompt_logprobs {
        return Prefix::none(root);
    }
    pool.find_prefix(root, &job.prompt[..job.prompt.len() - 1])
}

fn end_tokens(model: &Model) -> Vec<u32> {
    let tokenizer: &Tokenizer = model.tokenizer();
    let mut ends = model.config().eos_token_ids.clone();
    ends.extend(END_TOKENS.iter().filter_map(|name| tokenizer.special(name)));
    ends.sort_unstable();
    ends.dedup();
    ends
}

/// Says what makes the adapter unfit for this base; the forward pass relies on the shapes.
fn shape_fault(adapter: &ServedAdapter, config: &Config) -> Option<String> {
    if adapter.layer_count() != config.layer_count {
        return Some(format!("it has {} layers, the base {}", adapter.layer_count(), config.layer_count));
    }
    adapter.pairs().find_map(|(layer, projection, pair)| {
        let (n_out, n_in) = projection.shape(config);
        let fits = pair.a.len() == pair.rank * n_in && pair.b_t.len() == pair.rank * n_out;
        (!fits).then(|| format!("{} of layer {layer} has another shape than the base", projection.peft_name()))
    })
}

/// The whole state as text, without a word of any prompt or completion.
impl fmt::Display for EngineLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pool, residency) = (&self.pool, &self.residency);
        writeln!(f, "slots {}/{} queue {}", self.slots.len(), self.options.slots, self.queue.len())?;
        writeln!(f, "blocks {} free {} cached of {}", pool.free(), pool.cached(), pool.total())?;
        write!(f, "adapters {} of {} bytes", residency.count(), residency.bytes())?;
        match residency.loading() {
            Some(digest) => writeln!(f, ", loading {:.8}", digest.to_string())?,
            None => writeln!(f)?,
        }
        for sequence in &self.slots {
            let phase = match (&sequence.pinned, sequence.is_prefilling()) {
                (None, _) => "waits for adapter",
                (Some(_), true) => "reads prompt",
                (Some(_), false) => "decodes",
            };
            let Sequence { id, adapters, computed, prompt_tokens, table, .. } = sequence;
            let (generated, blocks) = (sequence.generated(), table.len());
            writeln!(
                f,
                "#{id} {phase} {adapters:?} computed {computed} prompt {prompt_tokens} generated {generated} blocks {blocks}"
            )?;
        }
        for ticket in self.queue.iter() {
            writeln!(f, "#{} queued {:?}", ticket.item.id, ticket.item.job.adapters)?;
        }
        Ok(())
    }
}

impl fmt::Debug for EngineLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
