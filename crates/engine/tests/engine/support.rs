//! A tiny model, random adapters, and an engine loop that tests turn by hand.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, LazyLock, Mutex};

use atelier_engine::{
    AdapterSet, AdapterSource, CompletionJob, Engine, EngineError, EngineLoop, EngineOptions, Event, FinishReason,
    Generation, Sampling, StepReport, TokenLogprob,
};
use atelier_kernels::{Compute, Tier, WeightFormat};
use atelier_model::{Adapter, Digest, LoadOptions, Model};

/// Turns after which a test that makes no progress gives up.
const STEPS_MAX: usize = 20_000;
/// Ids below this are special in the golden tokenizers; prompts are made of the rest.
const ORDINARY_TOKEN_MIN: u32 = 16;

/// The golden Llama model, in the given tier and format; loaded once.
pub fn model_in(tier: Tier, format: WeightFormat) -> Arc<Model> {
    static LOADED: LazyLock<Mutex<HashMap<String, Arc<Model>>>> = LazyLock::new(Mutex::default);
    let mut loaded = LOADED.lock().expect("no test panics while it loads");
    let load = || {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../model/golden/llama");
        let compute = Arc::new(Compute::new(tier, 2));
        Arc::new(Model::load(compute, &folder, LoadOptions { format, with_backward: false }).expect("it loads"))
    };
    Arc::clone(loaded.entry(format!("{tier} {format:?}")).or_insert_with(load))
}

/// The golden Llama model in the best tier.
pub fn model() -> Arc<Model> {
    model_in(Tier::detect(), WeightFormat::Bf16)
}

/// Numbers fixed by a seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x9e37_79b9_7f4a_7c15)
    }

    pub fn below(&mut self, end: usize) -> usize {
        // xorshift64* (Vigna 2016).
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as usize) % end
    }

    pub fn signed_unit(&mut self) -> f32 {
        self.below(1 << 20) as f32 / (1 << 19) as f32 - 1.0
    }

    pub fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }
}

pub fn digest(index: u8) -> Digest {
    Digest([index; 32])
}

pub fn set(indexes: &[u8]) -> AdapterSet {
    AdapterSet::of(&indexes.iter().map(|index| digest(*index)).collect::<Vec<_>>())
}

/// Adapter `index`: its rank is `index` modulo 7 plus 1, and its B is large enough to change most tokens.
pub fn adapter(model: &Model, index: u8) -> Adapter {
    let rank = usize::from(index) % 7 + 1;
    let mut adapter = Adapter::new_trainable(model.config(), rank, 2.0 * rank as f32, u64::from(index));
    let mut random = Random::new(u64::from(index) + 1);
    for (_, _, pair) in adapter.pairs_mut() {
        for b in &mut pair.b_t {
            *b = 0.4 * random.signed_unit();
        }
    }
    adapter
}

/// Gives [`adapter`]s; can be closed, can fail, counts.
pub struct TestSource {
    model: Arc<Model>,
    state: Mutex<SourceState>,
    opened: Condvar,
}

#[derive(Default)]
struct SourceState {
    closed: bool,
    loads: HashMap<Digest, usize>,
    faults: HashMap<Digest, Fault>,
}

/// How a load goes wrong.
#[derive(Clone, Copy)]
pub enum Fault {
    Refused,
    Panics,
    /// An adapter of another base's shape.
    OtherShape,
}

impl TestSource {
    pub fn close(&self) {
        self.state.lock().expect("lock").closed = true;
    }

    pub fn open(&self) {
        self.state.lock().expect("lock").closed = false;
        self.opened.notify_all();
    }

    pub fn break_adapter(&self, index: u8, fault: Fault) {
        self.state.lock().expect("lock").faults.insert(digest(index), fault);
    }

    pub fn loads(&self, index: u8) -> usize {
        self.state.lock().expect("lock").loads.get(&digest(index)).copied().unwrap_or(0)
    }
}

impl AdapterSource for TestSource {
    fn load(&self, digest: Digest) -> Result<Adapter, String> {
        let mut state = self.state.lock().expect("lock");
        *state.loads.entry(digest).or_default() += 1;
        while state.closed {
            state = self.opened.wait(state).expect("lock");
        }
        let fault = state.faults.get(&digest).copied();
        drop(state);
        match fault {
            None => Ok(adapter(&self.model, digest.0[0])),
            Some(Fault::Refused) => Err("not in the store".to_owned()),
            Some(Fault::Panics) => panic!("the source is broken on purpose"),
            Some(Fault::OtherShape) => {
                let mut config = self.model.config().clone();
                config.intermediate_size += 8;
                Ok(Adapter::new_trainable(&config, 2, 4.0, 0))
            }
        }
    }
}

/// A prompt of ordinary tokens fixed by its seed; a shorter one is the head of a longer one.
pub fn prompt(seed: u64, len: usize) -> Vec<u32> {
    let ordinary = 280 - ORDINARY_TOKEN_MIN as usize;
    let mut random = Random::new(seed);
    (0..len).map(|_| ORDINARY_TOKEN_MIN + random.below(ordinary) as u32).collect()
}

pub fn job(prompt: Vec<u32>, adapters: AdapterSet, tokens_max: usize) -> CompletionJob {
    CompletionJob {
        prompt,
        adapters,
        cache_salt: [0; 32],
        client: 0,
        weight: 1,
        sampling: Sampling::greedy(),
        stop: Vec::new(),
        tokens_max,
        logprobs: Some(3),
        prompt_logprobs: false,
    }
}

pub fn seeded(seed: u64) -> Sampling {
    Sampling { temperature: 0.9, top_p: 0.95, top_k: 50, seed }
}

/// Small sizes, so that chunks, budgets and evictions happen; random weights end nothing by themselves.
pub fn options() -> EngineOptions {
    EngineOptions {
        step_token_budget: 48,
        slots: 16,
        prefill_chunk: 24,
        kv_blocks: 192,
        queue_length_max: 64,
        adapter_bytes_max: 64 << 20,
        prefix_cache: true,
        ignore_end_tokens: true,
    }
}

/// Everything that came of one job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Completion {
    pub started: bool,
    pub cached_tokens: usize,
    pub tokens: Vec<u32>,
    pub text: String,
    pub logprobs: Vec<Option<TokenLogprob>>,
    pub prompt_logprobs: Option<Vec<Option<TokenLogprob>>>,
    pub reason: Option<FinishReason>,
    pub error: Option<EngineError>,
}

impl Completion {
    pub fn is_over(&self) -> bool {
        self.reason.is_some() || self.error.is_some()
    }

    pub fn take(&mut self, event: Event) {
        assert!(!self.is_over(), "{event:?} after the end");
        match event {
            Event::Started { cached_tokens, .. } => {
                assert!(!self.started && self.tokens.is_empty(), "started once, first");
                self.started = true;
                self.cached_tokens = cached_tokens;
            }
            Event::PromptLogprobs(all) => {
                assert!(self.tokens.is_empty() && self.prompt_logprobs.is_none());
                self.prompt_logprobs = Some(all);
            }
            Event::Token { id, text, logprob } => {
                assert!(self.started);
                self.tokens.push(id);
                self.text += &text;
                self.logprobs.push(logprob);
            }
            Event::Finished { reason, text, completion_tokens } => {
                self.text += &text;
                self.reason = Some(reason);
                assert_eq!(completion_tokens, self.tokens.len());
            }
            Event::Failed(error) => self.error = Some(error),
        }
    }

    /// The same but for how much of the prompt came from the cache, which depends on the past.
    pub fn answer(mut self) -> Completion {
        self.cached_tokens = 0;
        self
    }
}

/// An engine loop with its handle and source.
pub struct Rig {
    pub engine: Engine,
    pub source: Arc<TestSource>,
    pub turns: EngineLoop,
}

impl Rig {
    pub fn new(model: &Arc<Model>, options: EngineOptions) -> Rig {
        let source = source(model);
        let (turns, engine) = EngineLoop::new(Arc::clone(model), Arc::clone(&source) as _, options);
        Rig { engine, source, turns }
    }

    pub fn submit(&self, job: CompletionJob) -> Running {
        Running { generation: self.engine.submit(job).expect("accepted"), completion: Completion::default() }
    }

    /// One turn, audited.
    pub fn step(&mut self) -> StepReport {
        let report = self.turns.step();
        self.turns.audit().unwrap_or_else(|fault| panic!("{fault}\n{}", self.turns));
        report
    }

    /// Turns until all are over; sleeps when only the loader can bring news.
    pub fn finish(&mut self, all: &mut [Running]) -> Vec<Completion> {
        for _ in 0..STEPS_MAX {
            let report = self.step();
            all.iter_mut().for_each(Running::read);
            if all.iter().all(|running| running.completion.is_over()) {
                return all.iter().map(|running| running.completion.clone()).collect();
            }
            if report.is_idle() {
                self.turns.wait();
            }
        }
        panic!("no end after {STEPS_MAX} turns:\n{}", self.turns);
    }

    pub fn run(&mut self, jobs: Vec<CompletionJob>) -> Vec<Completion> {
        let mut all: Vec<Running> = jobs.into_iter().map(|job| self.submit(job)).collect();
        self.finish(&mut all)
    }

    /// Nothing is held any more.
    pub fn assert_empty(&self) {
        self.turns.audit().expect("balanced");
        let stats = self.engine.stats();
        assert_eq!((stats.running, stats.waiting_for_adapter, stats.queued), (0, 0, 0), "{}", self.turns);
        assert_eq!(stats.kv_blocks_free + stats.kv_blocks_cached, stats.kv_blocks_total);
    }
}

pub fn source(model: &Arc<Model>) -> Arc<TestSource> {
    Arc::new(TestSource { model: Arc::clone(model), state: Mutex::default(), opened: Condvar::new() })
}

/// A generation and what came of it so far.
pub struct Running {
    pub generation: Generation,
    pub completion: Completion,
}

impl Running {
    /// Takes what is there; never waits.
    pub fn read(&mut self) {
        while let Some(event) = self.generation.try_next() {
            self.completion.take(event);
        }
    }
}

/// What the job gives in an engine of its own without a prefix cache.
pub fn alone(model: &Arc<Model>, job: &CompletionJob) -> Completion {
    let mut rig = Rig::new(model, EngineOptions { prefix_cache: false, ..options() });
    rig.run(vec![job.clone()]).remove(0)
}
