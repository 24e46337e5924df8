//! What one client's requests tell about another's: nothing, in answers, in counts, in order and in what stays cached.

use atelier_engine::{CompletionJob, EngineOptions, StepReport};
use atelier_model::KV_BLOCK_TOKENS;

use crate::support::*;

/// Of a client, with its own salt.
fn of(client: u8, job: CompletionJob) -> CompletionJob {
    CompletionJob { client: u64::from(client), cache_salt: [client; 32], ..job }
}

#[test]
fn case_13_a_new_version_under_an_old_name_finds_nothing_of_the_old_one() {
    let model = model();
    let mut rig = Rig::new(&model, options());
    // The engine knows no names: the old and the new version of one name are two digests.
    let with_version = |version: u8| of(1, job(prompt(7, 40), set(&[version]), 8));
    for version in [1, 2, 1, 3] {
        let warm = rig.run(vec![with_version(version)]).remove(0);
        assert_eq!(warm.clone().answer(), alone(&model, &with_version(version)), "as cold");
        let again = version == 1 && warm.cached_tokens > 0;
        assert!(warm.cached_tokens == 0 || again, "version {version} found {} tokens", warm.cached_tokens);
    }
}

/// Two anchors on a prefix nearly as long as the tiny model's context, while eleven requests alternate between their adapters, again and again.
#[test]
fn case_16_alternating_adapters_over_a_long_shared_prefix() {
    let model = model();
    let shared = prompt(3, 200);
    let anchor = |adapter: u8| job(shared.clone(), set(&[adapter]), 24);
    let expected = [alone(&model, &anchor(1)), alone(&model, &anchor(2))];
    let mut rig = Rig::new(&model, options());
    for round in 0..100_u64 {
        let mut anchors = vec![rig.submit(anchor(1)), rig.submit(anchor(2))];
        let mut others = Vec::new();
        for turn in 0..11_u8 {
            let own = prompt(1_000 + round * 11 + u64::from(turn), 4);
            let adapter = if turn % 2 == 0 { 1 } else { 2 };
            others.push(rig.submit(job([shared.clone(), own].concat(), set(&[adapter]), 2)));
            rig.step();
        }
        // Half of them are given up on the way.
        others.truncate(6);
        let answers: Vec<Completion> = rig.finish(&mut anchors).into_iter().map(Completion::answer).collect();
        assert_eq!(answers, expected, "round {round}");
        rig.finish(&mut others);
    }
    rig.assert_empty();
}

#[test]
fn case_18_nothing_of_a_cache_outlives_its_engine() {
    let model = model();
    let ask = |adapter| of(1, job(prompt(5, 50), set(&[adapter]), 4));
    for adapter in [1, 2] {
        let mut rig = Rig::new(&model, options());
        assert_eq!(rig.run(vec![ask(adapter)])[0].cached_tokens, 0, "a fresh engine is cold");
        assert!(rig.run(vec![ask(adapter)])[0].cached_tokens > 0);
    }
}

#[test]
fn case_20_counts_of_cached_tokens_are_about_ones_own_requests() {
    let model = model();
    let mut rig = Rig::new(&model, options());
    let ask = |client| of(client, job(prompt(9, 70), set(&[]), 4));
    for client in 1..6 {
        assert_eq!(rig.run(vec![ask(client)])[0].cached_tokens, 0, "client {client} asks for the first time");
        let own = rig.run(vec![ask(client)]).remove(0);
        assert_eq!(own.cached_tokens, 4 * KV_BLOCK_TOKENS);
        assert_eq!(own.answer(), alone(&model, &ask(client)));
    }
}

/// What an attacker can observe of its own requests: at which step each began, how much was computed, what came out.
fn observed(warm: impl Fn(&mut Rig)) -> (Vec<StepReport>, Vec<Completion>) {
    let model = model();
    let mut rig = Rig::new(&model, EngineOptions { slots: 2, ..options() });
    warm(&mut rig);
    let secret = prompt(11, 64);
    let guesses = [32, 48, 64, 16, 64].map(|right| {
        let guess = [secret[..right].to_vec(), prompt(50 + right as u64, 80 - right)].concat();
        of(2, job(guess, set(&[1]), 3))
    });
    let mut running: Vec<Running> = guesses.into_iter().map(|guess| rig.submit(guess)).collect();
    let mut reports = Vec::new();
    while !running.iter().all(|running| running.completion.is_over()) {
        let report = rig.step();
        running.iter_mut().for_each(Running::read);
        // Turns in which the loader was still reading are the machine's, not the engine's.
        if report.is_idle() {
            rig.turns.wait();
        } else {
            reports.push(report);
        }
    }
    (reports, running.into_iter().map(|running| running.completion).collect())
}

#[test]
fn case_21_22_what_a_victim_cached_changes_neither_work_nor_order_of_anothers_requests() {
    let adapter_is_there = |rig: &mut Rig| drop(rig.run(vec![of(9, job(prompt(1, 4), set(&[1]), 1))]));
    let cold = observed(adapter_is_there);
    let warm = observed(|rig| {
        adapter_is_there(rig);
        // The victim warms the very prefixes that the attacker guesses.
        for right in [16, 32, 48, 64] {
            rig.run(vec![of(1, job(prompt(11, 64)[..right].to_vec(), set(&[1]), 2))]);
        }
        rig.run(vec![of(1, job([prompt(11, 64), prompt(3, 30)].concat(), set(&[1]), 8))]);
    });
    assert_eq!(warm, cold);
}
