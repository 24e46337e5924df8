//! Training and judging on the tiny golden Llama of the model crate.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use atelier_kernels::{Compute, Tier, WeightFormat};
use atelier_model::{Adapter, LoadOptions, Model};
use atelier_trainer::{
    CheckpointError, EvalOptions, Observer, Sample, SourceFile, StopReason, TrainError, TrainEvent, TrainOptions,
    Trained, completion_items, evaluate, first_line_matches, held_out_windows, mean_loss, train, window_losses,
};

const WINDOW_TOKENS: usize = 64;

fn model_with(threads: usize, with_backward: bool) -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/golden/llama");
    let options = LoadOptions { format: WeightFormat::Bf16, with_backward };
    Model::load(Arc::new(Compute::new(Tier::detect(), threads)), &folder, options).expect("tiny model loads")
}

fn model() -> Model {
    model_with(2, true)
}

fn file(path: &str, text: String) -> SourceFile {
    SourceFile { path: path.to_owned(), text }
}

fn files() -> Vec<SourceFile> {
    let function = |n: usize| format!("def add{n}(a, b):\n    return a + b + {n}\n\n");
    (0..4).map(|part| file(&format!("part{part}.py"), (part * 5..part * 5 + 5).map(function).collect())).collect()
}

fn validation(model: &Model) -> Vec<Sample> {
    let function = |n: usize| format!("def add{n}(a, b):\n    return a + b + {n}\n\n");
    held_out_windows(model.tokenizer(), &[file("held.py", (50..56).map(function).collect())], WINDOW_TOKENS)
}

fn options() -> TrainOptions {
    TrainOptions {
        rank: 4,
        alpha: 8.0,
        dropout: 0.1,
        learning_rate: 1e-2,
        epochs: 3,
        window_tokens: WINDOW_TOKENS,
        sequences_per_step: 2,
        checkpoint_steps: 3,
        seed: 7,
        ..TrainOptions::recipe(1_000, 48)
    }
}

/// Records everything; cancels after a step if told to.
#[derive(Default)]
struct Recorder {
    events: Vec<TrainEvent>,
    checkpoints: Vec<Vec<u8>>,
    cancel_after: Option<usize>,
}

impl Observer for Recorder {
    fn event(&mut self, event: &TrainEvent) -> ControlFlow<()> {
        self.events.push(event.clone());
        match (event, self.cancel_after) {
            (TrainEvent::Step { step, .. }, Some(last)) if *step >= last => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }

    fn checkpoint(&mut self, state: &[u8]) {
        self.checkpoints.push(state.to_vec());
    }
}

fn run(model: &Model, options: &TrainOptions) -> (Trained, Recorder) {
    let mut recorder = Recorder::default();
    let trained = train(model, &files(), &validation(model), options, None, &mut recorder).expect("training succeeds");
    (trained, recorder)
}

fn bytes(model: &Model, trained: &Trained) -> Vec<u8> {
    trained.adapter.to_peft(model.digest(), "tiny").weights
}

#[test]
fn one_text_can_be_learned_by_heart() {
    let model = model();
    let text = vec![file("one.py", "def area(w, h):\n    return w * h\n\n".repeat(6))];
    let window_tokens = 160;
    let windows = held_out_windows(model.tokenizer(), &text, window_tokens);
    let options = TrainOptions {
        rank: 16,
        alpha: 32.0,
        dropout: 0.0,
        epochs: 100,
        patience: 1_000,
        sequences_per_step: 1,
        window_tokens,
        ..options()
    };
    let trained = train(&model, &text, &windows, &options, None, &mut Recorder::default()).expect("training succeeds");
    assert!(trained.base_validation_loss > 4.0, "{trained:?}");
    assert!(trained.validation_loss < 0.5, "{}", trained.validation_loss);

    let card = evaluate(&model, Some(&trained.adapter), &text, &EvalOptions { window_tokens, items_max: 12, seed: 1 })
        .expect("text to judge");
    assert!((card.loss.own - trained.validation_loss).abs() < 0.02 * trained.base_validation_loss);
    assert!((card.loss.base - trained.base_validation_loss).abs() < 1e-6);
    assert!(card.bits_per_byte.own < card.bits_per_byte.base);
    assert!(card.paired_loss_ci95[0] > 0.0 && card.paired_loss_ci95[0] <= card.paired_loss_gain);
    assert_eq!(card.exact_match.base, 0.0);
    // Sixty thousand weights learn to write one of the two lines, not yet when.
    assert!(card.exact_match.own > 0.0, "{card:?}");
}

#[test]
fn same_seed_same_bytes_whatever_the_threads() {
    let (model, one_thread) = (model(), model_with(1, true));
    let (first, recorder) = run(&model, &options());
    let (again, _) = run(&one_thread, &options());
    assert_eq!(bytes(&model, &first), bytes(&one_thread, &again));
    assert_eq!(first.curve, again.curve);
    let (other, _) = run(&model, &TrainOptions { seed: 8, ..options() });
    assert_ne!(bytes(&model, &first), bytes(&model, &other));
    assert!(first.validation_loss < first.base_validation_loss);
    assert_eq!(recorder.events.last(), Some(&TrainEvent::Stopped { reason: StopReason::Finished }));
    let best = first.curve.iter().map(|point| point.validation_loss).fold(f64::INFINITY, f64::min);
    assert_eq!(best, first.validation_loss, "the best one wins");
    let windows = validation(&model);
    let judged = mean_loss(&window_losses(&model, &[&first.adapter], &windows).expect("windows fit"));
    let gain = first.base_validation_loss - first.validation_loss;
    let apart = (judged - first.validation_loss).abs();
    assert!(apart < 0.02 * gain, "and is what is handed back, but for the rounding: {apart} of a gain of {gain}");
}

#[test]
fn a_run_resumed_anywhere_ends_with_the_same_bytes() {
    let model = model();
    let (whole, recorder) = run(&model, &options());
    assert!(recorder.checkpoints.len() >= 4, "{}", recorder.checkpoints.len());
    for state in &recorder.checkpoints {
        let resumed = train(
            &model,
            &files(),
            &validation(&model),
            &TrainOptions { checkpoint_steps: 0, ..options() },
            Some(state),
            &mut Recorder::default(),
        )
        .expect("resumes");
        assert_eq!(bytes(&model, &resumed), bytes(&model, &whole));
        assert_eq!((resumed.steps, resumed.samples, resumed.tokens), (whole.steps, whole.samples, whole.tokens));
        assert_eq!(resumed.curve, whole.curve);
    }
}

#[test]
fn cancelling_leaves_a_checkpoint_at_every_step() {
    let model = model();
    let quick = TrainOptions { epochs: 1, ..options() };
    let (whole, _) = run(&model, &quick);
    for step in 1..=whole.steps {
        let mut recorder = Recorder { cancel_after: Some(step), ..Recorder::default() };
        let result = train(&model, &files(), &validation(&model), &quick, None, &mut recorder);
        assert!(matches!(result, Err(TrainError::Cancelled)));
        let last_step = recorder.events.iter().rev().find_map(|event| match event {
            TrainEvent::Step { step, .. } => Some(*step),
            _ => None,
        });
        assert_eq!(last_step, Some(step), "nothing happens after the cancellation");
        let state = recorder.checkpoints.last().expect("written on cancellation");
        let resumed = train(&model, &files(), &validation(&model), &quick, Some(state), &mut Recorder::default());
        assert_eq!(bytes(&model, &resumed.expect("resumes")), bytes(&model, &whole));
    }
}

#[test]
fn foreign_and_damaged_checkpoints_are_refused() {
    let model = model();
    let (_, recorder) = run(&model, &TrainOptions { epochs: 1, ..options() });
    let state = &recorder.checkpoints[0];
    let options = TrainOptions { epochs: 1, ..options() };
    let resume = |files: &[SourceFile], validation: &[Sample], options: &TrainOptions, state: &[u8]| match train(
        &model,
        files,
        validation,
        options,
        Some(state),
        &mut Recorder::default(),
    ) {
        Err(TrainError::Checkpoint(error)) => error,
        other => panic!("not refused: {other:?}"),
    };
    let same = |state: &[u8]| resume(&files(), &validation(&model), &options, state);
    assert_eq!(same(b""), CheckpointError::NotACheckpoint);
    assert_eq!(same(b"something else entirely"), CheckpointError::NotACheckpoint);
    assert_eq!(same(&state[..state.len() - 1]), CheckpointError::Damaged);
    assert_eq!(same(&state[..20]), CheckpointError::Damaged);
    let mut changed = state.clone();
    *changed.last_mut().expect("not empty") ^= 1;
    assert_eq!(same(&changed), CheckpointError::Damaged);
    let mut newer = state.clone();
    newer[8] = 2;
    assert_eq!(same(&newer), CheckpointError::Version { found: 2, known: 1 });

    let other_options = TrainOptions { learning_rate: 2e-2, ..options.clone() };
    assert_eq!(resume(&files(), &validation(&model), &other_options, state), CheckpointError::Mismatch);
    assert_eq!(resume(&files()[1..], &validation(&model), &options, state), CheckpointError::Mismatch);
    assert_eq!(resume(&files(), &validation(&model)[1..], &options, state), CheckpointError::Mismatch);
}

#[test]
fn training_stops_when_validation_does_not_improve() {
    let model = model();
    let wild = TrainOptions { learning_rate: 0.3, epochs: 50, patience: 2, ..options() };
    let (trained, recorder) = run(&model, &wild);
    assert_eq!(recorder.events.last(), Some(&TrainEvent::Stopped { reason: StopReason::Patience }));
    let after_best = trained.curve.iter().rev().take_while(|p| p.validation_loss > trained.validation_loss).count();
    assert_eq!(after_best, 2);
}

#[test]
fn a_step_limit_ends_the_schedule_with_a_validation() {
    let model = model();
    let (trained, recorder) = run(&model, &TrainOptions { steps_max: Some(5), ..options() });
    assert_eq!(trained.steps, 5);
    assert_eq!(trained.curve.last().map(|point| point.step), Some(5));
    let rates: Vec<f32> = recorder
        .events
        .iter()
        .filter_map(|event| match event {
            TrainEvent::Step { learning_rate, .. } => Some(*learning_rate),
            _ => None,
        })
        .collect();
    assert!(rates[4] < 0.5 * rates[0], "{rates:?}");
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let model = model();
    let windows = validation(&model);
    let fail = |files: &[SourceFile], windows: &[Sample], options: &TrainOptions| {
        train(&model, files, windows, options, None, &mut Recorder::default()).expect_err("refused").to_string()
    };
    let cases = [
        (fail(&[], &windows, &options()), "hold 0 tokens"),
        (fail(&files(), &[], &options()), "no held-out text"),
        (fail(&files(), &windows, &TrainOptions { window_tokens: 300, ..options() }), "exceed the base model's"),
        (fail(&files(), &windows, &TrainOptions { rank: 0, ..options() }), "`rank`"),
    ];
    for (error, expected) in cases {
        assert!(error.contains(expected), "{error:?} has no {expected:?}");
    }
    let inference = model_with(1, false);
    let result = train(&inference, &files(), &windows, &options(), None, &mut Recorder::default());
    assert!(matches!(result, Err(TrainError::Model(_))));
}

#[test]
fn judging_without_an_adapter_gives_equal_arms() {
    let model = model();
    let options = EvalOptions { window_tokens: WINDOW_TOKENS, items_max: 6, seed: 0 };
    let card = evaluate(&model, None, &files(), &options).expect("text to judge");
    assert_eq!(card.loss.base, card.loss.own);
    assert_eq!((card.files, card.paired_loss_ci95), (4, [0.0, 0.0]));
    let bytes: usize = files().iter().map(|file| file.text.len()).sum();
    let expected = card.loss.base * card.tokens as f64 / bytes as f64 / std::f64::consts::LN_2;
    assert!((card.bits_per_byte.base - expected).abs() < 1e-9);
    assert!(matches!(evaluate(&model, None, &[], &options), Err(TrainError::NothingHeldOut)));
}

#[test]
fn completions_do_not_depend_on_their_neighbours() {
    let model = model();
    let (trained, _) = run(&model, &options());
    let items = completion_items(model.tokenizer(), &files(), 20, 3);
    assert!(items.len() > 10);
    let adapters: [&[&Adapter]; 2] = [&[], &[&trained.adapter]];
    for adapters in adapters {
        let together = first_line_matches(&model, adapters, &items).expect("items fit");
        let alone: Vec<bool> = items
            .iter()
            .map(|item| first_line_matches(&model, adapters, std::slice::from_ref(item)).expect("item fits")[0])
            .collect();
        assert_eq!(together, alone);
    }
}
