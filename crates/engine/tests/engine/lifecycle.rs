//! Submission, cancellation, consumers, shutdown.

use std::sync::Arc;
use std::thread;

use atelier_engine::{CompletionJob, Engine, EngineError, EngineOptions, Event, Sampling, SubmitError};

use crate::support::*;

#[test]
fn a_job_that_can_never_be_served_is_refused_at_once() {
    let model = model();
    let rig = Rig::new(&model, EngineOptions { kv_blocks: 4, ..options() });
    let good = || job(prompt(1, 10), set(&[]), 5);
    let refusals = [
        (CompletionJob { prompt: vec![], ..good() }, "the prompt is empty"),
        (CompletionJob { prompt: prompt(1, 250), tokens_max: 7, ..good() }, "together more than the model's context"),
        (CompletionJob { tokens_max: usize::MAX, ..good() }, "together more than the model's context"),
        (CompletionJob { tokens_max: 56, ..good() }, "needs 5 KV blocks of 4"),
        (CompletionJob { prompt: vec![280], ..good() }, "outside of the vocabulary"),
        (CompletionJob { stop: vec![String::new()], ..good() }, "stop"),
        (CompletionJob { stop: vec!["x".to_owned(); 5], ..good() }, "stop"),
        (CompletionJob { stop: vec!["x".repeat(257)], ..good() }, "stop"),
        (CompletionJob { logprobs: Some(6), ..good() }, "logprobs"),
        (CompletionJob { sampling: Sampling { temperature: -1.0, ..Sampling::greedy() }, ..good() }, "temperature"),
        (CompletionJob { sampling: Sampling { temperature: f32::NAN, ..Sampling::greedy() }, ..good() }, "temperature"),
        (CompletionJob { sampling: Sampling { top_p: -0.1, ..Sampling::greedy() }, ..good() }, "top_p"),
        (CompletionJob { sampling: Sampling { top_p: 1.5, ..Sampling::greedy() }, ..good() }, "top_p"),
    ];
    for (job, expected) in refusals {
        let refusal = rig.engine.submit(job).expect_err(expected).to_string();
        assert!(refusal.contains(expected), "{refusal:?} does not say {expected:?}");
    }
    assert!(rig.engine.submit(CompletionJob { tokens_max: 55, ..good() }).is_ok(), "64 positions fit into 4 blocks");
    assert_eq!(rig.engine.stats().queued, 1);
}

#[test]
fn a_full_queue_refuses_and_recovers() {
    let model = model();
    let mut rig = Rig::new(&model, EngineOptions { queue_length_max: 3, slots: 2, ..options() });
    let next = || job(prompt(1, 10), set(&[]), 5);
    let mut all: Vec<Running> = (0..3).map(|_| rig.submit(next())).collect();
    assert_eq!(rig.engine.submit(next()).expect_err("full"), SubmitError::QueueFull { queue_length_max: 3 });
    rig.step();
    // Two have slots now, one waits: two more may wait.
    all.extend((0..2).map(|_| rig.submit(next())));
    assert!(rig.engine.submit(next()).is_err());
    // A queued one that goes away leaves its place at the next turn.
    drop(all.pop());
    assert_eq!(rig.step().cancelled, 1);
    all.push(rig.submit(next()));
    assert!(rig.finish(&mut all).iter().all(|answer| answer.tokens.len() == 5));
    rig.assert_empty();
}

#[test]
fn cancellation_frees_slot_blocks_and_pins_within_one_step() {
    let model = model();
    // Turns before the cancellation: in the queue, waiting for the adapter, reading the prompt, decoding.
    for turns in [0, 1, 3, 14] {
        let mut rig = Rig::new(&model, EngineOptions { prefill_chunk: 4, ..options() });
        let running = rig.submit(job(prompt(1, 40), set(&[1, 2]), 60));
        let counter = running.generation.generated();
        for _ in 0..turns {
            if rig.step().is_idle() {
                rig.turns.wait();
            }
        }
        let generated = counter.get();
        drop(running);
        assert!(!counter.is_settled());
        let report = rig.step();
        assert_eq!((report.cancelled, report.decode_rows, report.prefill_rows), (1, 0, 0), "after {turns} turns");
        assert!(counter.is_settled());
        assert_eq!(counter.get(), generated, "metering knows what was made before");
        // A load that was on its way may still come in; nobody waits for it.
        rig.assert_empty();
    }
}

#[test]
fn a_waiting_request_gets_the_cancelled_ones_blocks_in_the_same_step() {
    let model = model();
    let mut rig = Rig::new(&model, EngineOptions { kv_blocks: 6, ..options() });
    let first = rig.submit(job(prompt(1, 40), set(&[]), 50));
    let second = rig.submit(job(prompt(2, 40), set(&[]), 50));
    rig.step();
    assert_eq!((rig.engine.stats().running, rig.engine.stats().queued), (1, 1), "six blocks hold one of them");
    drop(first);
    let report = rig.step();
    assert_eq!((report.cancelled, report.admitted, report.started), (1, 1, 1));
    drop(second);
}

#[test]
fn a_large_request_is_not_overtaken_by_small_ones() {
    let model = model();
    let mut rig = Rig::new(&model, EngineOptions { kv_blocks: 6, ..options() });
    let mut all = vec![
        rig.submit(job(prompt(1, 20), set(&[]), 20)),
        rig.submit(job(prompt(2, 60), set(&[]), 30)),
        rig.submit(job(prompt(3, 4), set(&[]), 4)),
    ];
    rig.step();
    assert_eq!(rig.engine.stats().running, 1, "the small one fits beside the first but waits for the large one");
    rig.finish(&mut all);
    rig.assert_empty();
}

#[test]
fn a_slow_consumer_holds_up_nobody_and_loses_nothing() {
    let model = model();
    let mut rig = Rig::new(&model, options());
    let unread = job(prompt(1, 10), set(&[]), 100);
    let mut slow = rig.submit(unread.clone());
    let quick: Vec<CompletionJob> = (2..6).map(|seed| job(prompt(seed, 10), set(&[]), 100)).collect();
    let answers = rig.run(quick.clone());
    for (job, answer) in quick.iter().zip(answers) {
        assert_eq!(answer, alone(&model, job));
    }
    while rig.step().decode_rows > 0 {}
    slow.read();
    assert_eq!(slow.completion, alone(&model, &unread));
}

#[test]
fn threads_and_the_real_loop() {
    let model = model();
    let engine = Engine::start(Arc::clone(&model), source(&model), options());
    let jobs: Vec<CompletionJob> = (0u8..16)
        .map(|index| CompletionJob {
            sampling: seeded(index.into()),
            ..job(prompt(index.into(), 12), set(&[index % 13 + 1]), 15)
        })
        .collect();
    let expected: Vec<Completion> = jobs.iter().map(|job| alone(&model, job)).collect();
    thread::scope(|scope| {
        for (index, (job, expected)) in jobs.iter().zip(&expected).enumerate() {
            let engine = &engine;
            scope.spawn(move || {
                let mut generation = engine.submit(job.clone()).expect("accepted");
                if index % 5 == 4 {
                    generation.blocking_next();
                    return; // gone in the middle
                }
                let mut completion = Completion::default();
                while let Some(event) = generation.blocking_next() {
                    completion.take(event);
                }
                assert_eq!(completion.answer(), *expected);
                assert_eq!(generation.generated().get(), 15);
            });
        }
    });
    engine.shutdown();
}

#[test]
fn shutdown_ends_every_story() {
    let model = model();
    let engine = Engine::start(Arc::clone(&model), source(&model), EngineOptions { slots: 2, ..options() });
    let mut all: Vec<_> =
        (0..6).map(|seed| engine.submit(job(prompt(seed, 10), set(&[]), 240)).expect("accepted")).collect();
    let other_handle = engine.clone();
    engine.shutdown();
    for generation in &mut all {
        let mut last = None;
        while let Some(event) = generation.blocking_next() {
            last = Some(event);
        }
        assert!(matches!(last, Some(Event::Failed(EngineError::Stopped) | Event::Finished { .. })), "{last:?}");
    }
    let refused = other_handle.submit(job(prompt(1, 4), set(&[]), 1));
    assert_eq!(refused.expect_err("stopped"), SubmitError::ShuttingDown);
}

#[test]
fn the_count_settles_after_a_disconnect() {
    let model = model();
    let engine = Engine::start(Arc::clone(&model), source(&model), options());
    let mut generation = engine.submit(job(prompt(1, 10), set(&[]), 200)).expect("accepted");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let counted = runtime.block_on(async {
        let mut seen = 0;
        while seen < 3 {
            seen += usize::from(matches!(generation.next().await, Some(Event::Token { .. })));
        }
        let counter = generation.generated();
        drop(generation);
        counter.settled().await
    });
    assert!((3..=200).contains(&counted));
    let handle = engine.clone();
    assert!(handle.is_alive());
    engine.shutdown();
    assert!(!handle.is_alive());
    assert_eq!(handle.stats().generated_tokens_total, counted as u64);
}

#[test]
fn the_state_prints_as_text() {
    let model = model();
    let mut rig = Rig::new(&model, EngineOptions { slots: 3, ..options() });
    rig.source.close();
    let _all = [
        rig.submit(job(prompt(1, 10), set(&[]), 6)),
        rig.submit(job(prompt(2, 40), set(&[]), 6)),
        rig.submit(job(prompt(3, 40), set(&[171, 5]), 6)),
        rig.submit(job(prompt(4, 40), set(&[5]), 6)),
    ];
    rig.step();
    let expected = "\
slots 3/3 queue 1
blocks 185 free 0 cached of 192
adapters 0 of 0 bytes, loading abababab
#1 decodes [] computed 10 prompt 10 generated 1 blocks 1
#2 reads prompt [] computed 24 prompt 40 generated 0 blocks 3
#3 waits for adapter [abababab 05050505] computed 0 prompt 40 generated 0 blocks 3
#4 queued [05050505]
";
    assert_eq!(rig.turns.to_string(), expected);
    rig.source.open();
}
