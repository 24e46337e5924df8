//! The training loop: samples in, the best adapter out.

use std::ops::{ControlFlow, Range};
use std::time::Instant;

use atelier_model::{Adapter, AdapterGradients, Dropout, Model, TrainBatch, TrainScratch};
use serde::{Deserialize, Serialize};

use crate::checkpoint::State;
use crate::error::TrainError;
use crate::evaluate::losses_with;
use crate::optimiser::Optimiser;
use crate::random::{Purpose, Random};
use crate::recipe::TrainOptions;
use crate::samples::{Corpus, Sample, SampleOptions};
use crate::split::SourceFile;
use crate::statistics::mean_loss;

/// Weight of the newest step in the displayed tokens per second.
const SPEED_SMOOTHING: f64 = 0.1;

/// What happens while training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum TrainEvent {
    /// The data is ready.
    Started {
        /// Steps that a run to the end of its schedule takes.
        steps_total: usize,
        /// Steps done before, if the run was resumed.
        step: usize,
        /// Tokens of the training files.
        tokens: usize,
        /// Loss of the base on the validation windows, nats per token.
        base_validation_loss: f64,
    },
    /// One optimiser step is done.
    Step {
        /// From 1.
        step: usize,
        /// As in `Started`.
        steps_total: usize,
        /// Mean over the step's targets, nats.
        loss: f64,
        /// Of this step.
        learning_rate: f32,
        /// Target tokens per second, smoothed.
        tokens_per_second: f64,
    },
    /// The adapter was judged on the validation windows.
    Validation {
        /// Steps done.
        step: usize,
        /// Mean over the windows' targets, nats.
        loss: f64,
        /// Whether it is the lowest so far.
        best: bool,
    },
    /// Training is over.
    Stopped {
        /// Why.
        reason: StopReason,
    },
}

/// Why training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The schedule was done.
    Finished,
    /// Validation had stopped improving.
    Patience,
}

/// Follows a run.
pub trait Observer {
    /// Called after each step; `Break` cancels: the run writes a last checkpoint and ends with
    /// [`TrainError::Cancelled`].
    fn event(&mut self, event: &TrainEvent) -> ControlFlow<()>;

    /// A state to resume from; keep the newest.
    fn checkpoint(&mut self, state: &[u8]);
}

/// One validation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Steps done.
    pub step: usize,
    /// Mean loss of the last step's targets.
    pub train_loss: f64,
    /// Mean loss of the validation targets.
    pub validation_loss: f64,
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The adapter of the lowest validation loss.
    pub adapter: Adapter,
    /// Steps taken.
    pub steps: usize,
    /// Samples learned from, each as often as it was.
    pub samples: usize,
    /// Target tokens learned from.
    pub tokens: usize,
    /// Validation loss without adapter.
    pub base_validation_loss: f64,
    /// Validation loss with `adapter`.
    pub validation_loss: f64,
    /// Every validation.
    pub curve: Vec<CurvePoint>,
}

/// Trains an adapter on `train_files`, keeping the one with the lowest loss on `validation`. With `resume`, goes on
/// from a checkpoint of the same run and ends with the same bytes as if it had not been stopped.
///
/// # Errors
/// Options out of range, too little text, no validation windows, a foreign or damaged checkpoint, divergence,
/// cancellation, or a model loaded without `with_backward`.
pub fn train(
    model: &Model,
    train_files: &[SourceFile],
    validation: &[Sample],
    options: &TrainOptions,
    resume: Option<&[u8]>,
    observer: &mut dyn Observer,
) -> Result<Trained, TrainError> {
    let corpus = Corpus::new(model.tokenizer(), train_files);
    check(model, &corpus, validation, options)?;
    let mut run = Run::new(model, &corpus, validation, options);
    let fingerprint = fingerprint(model, train_files, validation, options);
    match resume {
        Some(file) => run.state.restore(file, &fingerprint)?,
        None => run.state.base_loss = run.validation_loss(false)?,
    }
    let outcome = run.go(observer, &fingerprint)?;
    observer_event(observer, &TrainEvent::Stopped { reason: outcome })?;
    let state = run.state;
    Ok(Trained {
        adapter: state.best,
        steps: state.step,
        samples: state.samples,
        tokens: state.tokens,
        base_validation_loss: state.base_loss,
        validation_loss: state.best_loss,
        curve: state.curve,
    })
}

fn check(model: &Model, corpus: &Corpus<'_>, validation: &[Sample], options: &TrainOptions) -> Result<(), TrainError> {
    options.check()?;
    let context_tokens_max = model.config().context_tokens_max;
    let window_tokens = validation.iter().map(|sample| sample.tokens.len() - 1).max().unwrap_or(0);
    let window_tokens = window_tokens.max(options.window_tokens);
    if window_tokens > context_tokens_max {
        return Err(TrainError::WindowTooLong { window_tokens, context_tokens_max });
    }
    let (tokens, needed) = (corpus.token_count(), options.window_tokens);
    if tokens < needed {
        return Err(TrainError::TooLittleText { tokens, needed });
    }
    if validation.is_empty() { Err(TrainError::NothingHeldOut) } else { Ok(()) }
}

/// Steps of one epoch, and after which of them to validate.
struct Epoch {
    steps: Range<usize>,
    validate_after: Vec<usize>,
}

struct Run<'a> {
    model: &'a Model,
    corpus: &'a Corpus<'a>,
    validation: &'a [Sample],
    options: &'a TrainOptions,
    epochs: Vec<Epoch>,
    steps_total: usize,
    state: State,
    gradients: AdapterGradients,
    scratch: TrainScratch,
    tokens_per_second: f64,
}

impl<'a> Run<'a> {
    fn new(model: &'a Model, corpus: &'a Corpus<'a>, validation: &'a [Sample], options: &'a TrainOptions) -> Run<'a> {
        let seed = Random::keyed(options.seed, Purpose::AdapterInit, 0).next_u64();
        let adapter = Adapter::new_trainable(model.config(), options.rank, options.alpha, seed);
        let epochs = plan(corpus, options);
        Run {
            model,
            corpus,
            validation,
            options,
            steps_total: epochs.last().map_or(0, |epoch| epoch.steps.end),
            epochs,
            gradients: AdapterGradients::zeros_like(&adapter),
            state: State {
                step: 0,
                samples: 0,
                tokens: 0,
                base_loss: 0.0,
                best_loss: f64::INFINITY,
                stale: 0,
                curve: Vec::new(),
                optimiser: Optimiser::new(&adapter),
                best: adapter.clone(),
                adapter,
            },
            scratch: TrainScratch::new(),
            tokens_per_second: 0.0,
        }
    }

    fn go(&mut self, observer: &mut dyn Observer, fingerprint: &[u8; 32]) -> Result<StopReason, TrainError> {
        let started = TrainEvent::Started {
            steps_total: self.steps_total,
            step: self.state.step,
            tokens: self.corpus.token_count(),
            base_validation_loss: self.state.base_loss,
        };
        observer_event(observer, &started)?;
        for index in 0..self.epochs.len() {
            if self.state.step >= self.epochs[index].steps.end {
                continue;
            }
            let samples = self.corpus.training_samples(&sample_options(self.options, index));
            while self.state.step < self.epochs[index].steps.end {
                if self.state.stale >= self.options.patience {
                    return Ok(StopReason::Patience);
                }
                let events = self.step_and_judge(index, &samples)?;
                let is_cancelled = events.iter().any(|event| observer.event(event).is_break());
                let period = self.options.checkpoint_steps;
                if is_cancelled || period > 0 && self.state.step.is_multiple_of(period) {
                    observer.checkpoint(&self.state.to_bytes(fingerprint));
                }
                if is_cancelled {
                    return Err(TrainError::Cancelled);
                }
            }
        }
        Ok(StopReason::Finished)
    }

    /// One step, and a validation where the plan has one; after it the state is whole, for a checkpoint.
    fn step_and_judge(&mut self, epoch: usize, samples: &[Sample]) -> Result<Vec<TrainEvent>, TrainError> {
        let Epoch { steps, validate_after } = &self.epochs[epoch];
        let first = (self.state.step - steps.start) * self.options.sequences_per_step;
        let last = (first + self.options.sequences_per_step).min(samples.len());
        let is_judged = validate_after.contains(&(self.state.step + 1));
        let learning_rate = self.options.learning_rate_at(self.state.step, self.steps_total);
        let loss = self.step(&samples[first..last], learning_rate)?;
        let (step, steps_total) = (self.state.step, self.steps_total);
        let tokens_per_second = self.tokens_per_second;
        let mut events = vec![TrainEvent::Step { step, steps_total, loss, learning_rate, tokens_per_second }];
        if is_judged {
            let validation_loss = self.validation_loss(true)?;
            let best = validation_loss < self.state.best_loss;
            if best {
                self.state.best_loss = validation_loss;
                self.state.best.clone_from(&self.state.adapter);
                self.state.stale = 0;
            } else {
                self.state.stale += 1;
            }
            self.state.curve.push(CurvePoint { step, train_loss: loss, validation_loss });
            events.push(TrainEvent::Validation { step, loss: validation_loss, best });
        }
        Ok(events)
    }

    fn step(&mut self, samples: &[Sample], learning_rate: f32) -> Result<f64, TrainError> {
        let start = Instant::now();
        let packed = Packed::new(samples);
        let number = self.state.step as u64;
        let seed = Random::keyed(self.options.seed, Purpose::Dropout, number).next_u64();
        let dropout = Some(Dropout { rate: self.options.dropout, seed }).filter(|dropout| dropout.rate > 0.0);
        let sum = self.model.loss_and_gradients(
            &mut self.scratch,
            &self.state.adapter,
            dropout,
            &packed.batch(),
            &mut self.gradients,
        )?;
        let norm = self.state.optimiser.step(
            self.model.compute(),
            &mut self.state.adapter,
            &mut self.gradients,
            self.options,
            learning_rate,
            number + 1,
        );
        self.state.step += 1;
        self.state.samples += samples.len();
        self.state.tokens += sum.tokens;
        if !norm.is_finite() || !sum.total.is_finite() {
            return Err(TrainError::Diverged { step: self.state.step });
        }
        let speed = sum.tokens as f64 / start.elapsed().as_secs_f64();
        let is_first = self.tokens_per_second == 0.0;
        self.tokens_per_second += (speed - self.tokens_per_second) * if is_first { 1.0 } else { SPEED_SMOOTHING };
        Ok(sum.mean())
    }

    /// Mean loss of the validation windows, with or without the adapter as it is now.
    fn validation_loss(&mut self, with_adapter: bool) -> Result<f64, TrainError> {
        let adapters = if with_adapter { &[&self.state.adapter][..] } else { &[] };
        let losses = losses_with(self.model, &mut self.scratch, adapters, self.validation)?;
        let loss = mean_loss(&losses);
        if loss.is_finite() { Ok(loss) } else { Err(TrainError::Diverged { step: self.state.step }) }
    }
}

/// Samples as one batch of the model.
pub(crate) struct Packed {
    tokens: Vec<u32>,
    targets: Vec<i32>,
    pub(crate) sequences: Vec<Range<usize>>,
}

impl Packed {
    pub(crate) fn new(samples: &[Sample]) -> Packed {
        let mut packed = Packed { tokens: Vec::new(), targets: Vec::new(), sequences: Vec::new() };
        for sample in samples {
            let start = packed.tokens.len();
            packed.tokens.extend_from_slice(&sample.tokens[..sample.tokens.len() - 1]);
            packed.targets.extend(sample.tokens[1..].iter().map(|&token| token as i32));
            packed.sequences.push(start..packed.tokens.len());
        }
        packed
    }

    pub(crate) fn batch(&self) -> TrainBatch<'_> {
        TrainBatch { tokens: &self.tokens, targets: &self.targets, sequences: &self.sequences }
    }
}

fn sample_options(options: &TrainOptions, epoch: usize) -> SampleOptions {
    let TrainOptions { window_tokens, fim_share, seed, .. } = *options;
    SampleOptions { window_tokens, fim_share, seed, epoch }
}

/// Which steps belong to which epoch; ends at `steps_max`, where there is always a last validation.
fn plan(corpus: &Corpus<'_>, options: &TrainOptions) -> Vec<Epoch> {
    let steps_max = options.steps_max.unwrap_or(usize::MAX);
    let mut epochs = Vec::new();
    let mut start = 0;
    for index in 0..options.epochs {
        let count = corpus.sample_count(&sample_options(options, index)).div_ceil(options.sequences_per_step);
        let end = (start + count).min(steps_max);
        if start >= end {
            break;
        }
        let parts = options.validations_per_epoch.min(count);
        let mut validate_after: Vec<usize> =
            (1..=parts).map(|part| start + (count * part).div_ceil(parts)).filter(|&step| step < end).collect();
        validate_after.push(end);
        epochs.push(Epoch { steps: start..end, validate_after });
        start = end;
    }
    epochs
}

fn observer_event(observer: &mut dyn Observer, event: &TrainEvent) -> Result<(), TrainError> {
    match observer.event(event) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(TrainError::Cancelled),
    }
}

/// Digest of all that decides the result, so that a checkpoint is never continued with something else.
fn fingerprint(model: &Model, files: &[SourceFile], validation: &[Sample], options: &TrainOptions) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    field(b"atelier training run 1");
    field(&model.digest().0);
    // How often checkpoints are written changes no result. `{:?}` of floats is exact.
    let decisive = TrainOptions { checkpoint_steps: 0, ..options.clone() };
    field(format!("{decisive:?}").as_bytes());
    for file in files {
        field(file.path.as_bytes());
        field(file.text.as_bytes());
    }
    for sample in validation {
        let bytes: Vec<u8> = sample.tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        field(&bytes);
    }
    *hasher.finalize().as_bytes()
}
