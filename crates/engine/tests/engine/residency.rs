//! Adapters come and go under a budget while requests run.

use atelier_engine::{EngineError, EngineOptions};

use crate::support::*;

/// A budget for the two largest test adapters.
fn budget_of_two(model: &atelier_model::Model) -> usize {
    2 * (1..=13).map(|index| adapter(model, index).to_served().bytes()).max().expect("some")
}

#[test]
fn one_load_for_all_that_wait_while_others_run() {
    let model = model();
    let mut rig = Rig::new(&model, options());
    rig.source.close();
    let mut waiting: Vec<Running> = (0..4).map(|seed| rig.submit(job(prompt(seed, 10), set(&[5]), 6))).collect();
    let mut base = [rig.submit(job(prompt(9, 10), set(&[]), 6))];
    rig.finish(&mut base);
    let stats = rig.engine.stats();
    assert_eq!((stats.waiting_for_adapter, stats.running), (4, 0));
    rig.source.open();
    let answers = rig.finish(&mut waiting);
    assert!(answers.iter().all(|answer| answer.tokens.len() == 6));
    assert_eq!(rig.source.loads(5), 1);
    rig.assert_empty();
}

#[test]
fn what_cannot_be_loaded_fails_its_own_requests_only() {
    for fault in [Fault::Refused, Fault::Panics, Fault::OtherShape] {
        let model = model();
        let mut rig = Rig::new(&model, options());
        rig.source.break_adapter(2, fault);
        let jobs = [set(&[1]), set(&[2]), set(&[1, 2]), set(&[])].map(|set| job(prompt(1, 20), set, 5));
        let answers = rig.run(jobs.to_vec());
        let failed: Vec<bool> = answers.iter().map(|answer| answer.error.is_some()).collect();
        assert_eq!(failed, [false, true, true, false]);
        assert!(matches!(&answers[1].error, Some(EngineError::AdapterLoad { digest: d, .. }) if *d == digest(2)));
        assert!(!answers[1].started, "an error before the start can still become a clean HTTP status");
        rig.assert_empty();
    }
}

#[test]
fn a_set_beyond_the_budget_fails_and_does_not_block() {
    let model = model();
    let adapter_bytes_max = adapter(&model, 6).to_served().bytes() + 1;
    let mut rig = Rig::new(&model, EngineOptions { adapter_bytes_max, ..options() });
    let jobs = [set(&[6, 5]), set(&[6]), set(&[5]), set(&[])].map(|set| job(prompt(1, 20), set, 5));
    let answers = rig.run(jobs.to_vec());
    assert!(matches!(answers[0].error, Some(EngineError::AdapterTooLarge { .. })));
    assert!(answers[1..].iter().all(|answer| answer.tokens.len() == 5));
    rig.assert_empty();
}

#[test]
fn a_pinned_adapter_outlives_the_pressure_of_others() {
    let model = model();
    let adapter_bytes_max = budget_of_two(&model);
    let mut rig = Rig::new(&model, EngineOptions { adapter_bytes_max, ..options() });
    let long = job(prompt(1, 10), set(&[1]), 60);
    let expected = alone(&model, &long);
    let mut running = [rig.submit(long)];
    for round in 0..10 {
        let others = (2..6).map(|index| job(prompt(round, 6), set(&[index]), 2)).collect();
        rig.run(others);
    }
    assert_eq!(rig.finish(&mut running), [expected]);
    assert_eq!(rig.source.loads(1), 1);
    assert!(rig.engine.stats().adapter_evictions_total > 0);
}

/// Requests over thirteen adapters, alone and in pairs, under a budget of two, with cancellations at any moment.
#[test]
fn storm_of_loads_under_a_budget_of_two() {
    let model = model();
    let adapter_bytes_max = budget_of_two(&model);
    let sizes = EngineOptions { adapter_bytes_max, slots: 6, kv_blocks: 48, ..options() };
    let mut rig = Rig::new(&model, sizes);
    let mut random = Random::new(11);
    let mut live: Vec<(atelier_engine::CompletionJob, Running)> = Vec::new();
    let (mut submitted, mut cancelled, mut checked) = (0, 0, 0);
    while submitted < 150 || !live.is_empty() {
        while submitted < 150 && live.len() < 20 {
            let first = 1 + random.below(13) as u8;
            let second = 1 + random.below(13) as u8;
            let set = match random.below(4) {
                0 => set(&[]),
                1 if first != second => set(&[first, second]),
                _ => set(&[first]),
            };
            let next = job(prompt(random.below(5) as u64, 1 + random.below(50)), set, random.below(12));
            live.push((next.clone(), rig.submit(next)));
            submitted += 1;
        }
        if random.chance(4) && !live.is_empty() {
            live.swap_remove(random.below(live.len()));
            cancelled += 1;
        }
        let report = rig.step();
        live.iter_mut().for_each(|(_, running)| running.read());
        live.retain(|(job, running)| {
            let over = running.completion.is_over();
            if over {
                // Each check runs the job again in an engine of its own: a third of them is enough.
                checked += 1;
                assert_eq!(running.completion.error, None);
                assert!(checked % 3 != 0 || running.completion.clone().answer() == alone(&model, job));
            }
            !over
        });
        if report.is_idle() && !live.is_empty() {
            rig.turns.wait();
        }
    }
    rig.step();
    rig.assert_empty();
    assert!(cancelled > 20 && checked > 50, "{cancelled} cancelled, {checked} finished");
    let stats = rig.engine.stats();
    assert!(stats.adapter_bytes <= adapter_bytes_max && stats.adapter_evictions_total > 20, "{stats:?}");
}
