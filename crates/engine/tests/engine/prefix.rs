//! Prefix reuse: the same answers, and never across salts or adapter sets.

use std::collections::HashMap;

use atelier_engine::{CompletionJob, EngineOptions};
use atelier_model::KV_BLOCK_TOKENS;
use proptest::prelude::*;

use crate::support::*;

fn common_prefix(left: &[u32], right: &[u32]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}

/// Serves bursts of jobs one after another in one engine; checks each answer against the job alone, and each cached
/// prefix against the only requests that it may come from.
fn check_bursts(bursts: &[Vec<CompletionJob>], sizes: EngineOptions) -> Result<usize, TestCaseError> {
    let model = model();
    let mut rig = Rig::new(&model, sizes);
    let mut past: HashMap<String, Vec<Vec<u32>>> = HashMap::new();
    let mut cached_total = 0;
    for burst in bursts {
        let answers = rig.run(burst.clone());
        let scope = |job: &CompletionJob| format!("{:?} {:?}", job.adapters, job.cache_salt);
        // A burst's own requests may feed each other, in any order in which slots come free.
        for (job, answer) in burst.iter().zip(&answers) {
            past.entry(scope(job)).or_default().push([job.prompt.clone(), answer.tokens.clone()].concat());
        }
        for (job, answer) in burst.iter().zip(answers) {
            let longest = past[&scope(job)].iter().map(|tokens| common_prefix(tokens, &job.prompt)).max();
            let allowed = longest.unwrap_or(0).min(job.prompt.len() - 1) / KV_BLOCK_TOKENS * KV_BLOCK_TOKENS;
            prop_assert!(answer.cached_tokens <= allowed, "{} cached, {allowed} known", answer.cached_tokens);
            cached_total += answer.cached_tokens;
            prop_assert_eq!(answer.answer(), alone(&model, job));
        }
    }
    rig.assert_empty();
    Ok(cached_total)
}

fn any_job() -> impl Strategy<Value = CompletionJob> {
    let sets: Vec<&[u8]> = vec![&[], &[1], &[2], &[1, 2], &[2, 1]];
    (0u64..3, 1usize..90, prop::sample::select(sets), 0u8..2, 0usize..10, any::<u64>()).prop_map(
        |(family, len, indexes, salt, tokens_max, seed)| CompletionJob {
            cache_salt: [salt; 32],
            sampling: seeded(seed),
            ..job(prompt(family, len), set(indexes), tokens_max)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn random_traffic_with_shared_prefixes(
        bursts in prop::collection::vec(prop::collection::vec(any_job(), 1..6), 1..6),
        kv_blocks in 8usize..40,
    ) {
        check_bursts(&bursts, EngineOptions { kv_blocks, slots: 4, ..options() })?;
    }
}

#[test]
fn the_second_request_finds_what_the_first_computed() {
    let model = model();
    let mut rig = Rig::new(&model, options());
    let first = job(prompt(7, 40), set(&[1]), 12);
    let answer = rig.run(vec![first.clone()]).remove(0);
    assert_eq!(answer.cached_tokens, 0);

    // (prompt, adapter set, salt) and the tokens that may come from the cache.
    let grown = [first.prompt.clone(), answer.tokens.clone(), vec![20, 21, 22]].concat();
    let cases = [
        (first.prompt.clone(), set(&[1]), 0, 32),
        (first.prompt[..33].to_vec(), set(&[1]), 0, 32),
        (first.prompt[..32].to_vec(), set(&[1]), 0, 16),
        (first.prompt[..16].to_vec(), set(&[1]), 0, 0),
        (grown, set(&[1]), 0, 48),
        (first.prompt.clone(), set(&[1]), 1, 0),
        (first.prompt.clone(), set(&[2]), 0, 0),
        (first.prompt.clone(), set(&[]), 0, 0),
        (first.prompt.clone(), set(&[1, 2]), 0, 0),
        ([vec![99], first.prompt[1..].to_vec()].concat(), set(&[1]), 0, 0),
    ];
    for (prompt, adapters, salt, cached) in cases {
        let next = CompletionJob { cache_salt: [salt; 32], ..job(prompt, adapters, 8) };
        let answer = rig.run(vec![next.clone()]).remove(0);
        assert_eq!(answer.cached_tokens, cached, "{:?}, {} tokens", next.adapters, next.prompt.len());
        assert_eq!(answer.answer(), alone(&model, &next));
    }
}

#[test]
fn alternation_of_adapters_over_one_shared_prefix() {
    let alternate = |turn: usize| {
        let shared = prompt(3, 64);
        let own = prompt(100 + turn as u64 % 3, 5);
        job([shared, own].concat(), set(if turn.is_multiple_of(2) { &[1] } else { &[2] }), 6)
    };
    let bursts: Vec<Vec<CompletionJob>> =
        (0..8).map(|burst| (0..3).map(|index| alternate(3 * burst + index)).collect()).collect();
    let cached = check_bursts(&bursts, options()).expect("as alone");
    // All but each adapter's first burst find the shared 64 tokens.
    assert!(cached >= (24 - 6) * 64, "only {cached} tokens came from the cache");
}

#[test]
fn requests_that_arrive_together_read_their_common_prompt_about_once() {
    let model = model();
    let sizes = options();
    let (at_once, chunk) = (sizes.step_token_budget / sizes.prefill_chunk, sizes.prefill_chunk);
    let mut rig = Rig::new(&model, sizes);
    let jobs: Vec<CompletionJob> =
        (0..8).map(|seed| CompletionJob { sampling: seeded(seed), ..job(prompt(5, 200), set(&[2]), 6) }).collect();
    let mut all: Vec<Running> = jobs.iter().map(|job| rig.submit(job.clone())).collect();
    let mut rows = 0;
    while rig.engine.stats().generated_tokens_total < 8 {
        let report = rig.step();
        rows += report.prefill_rows;
        if report.is_idle() {
            rig.turns.wait();
        }
    }
    // Those that share a step compute the same chunk; the others find it, up to a block that is not full.
    assert!(rows <= at_once * 200 + 8 * (KV_BLOCK_TOKENS + chunk), "{rows} rows for one prompt of 200");
    for (job, answer) in jobs.iter().zip(rig.finish(&mut all)) {
        assert_eq!(answer, alone(&model, job));
    }
    rig.assert_empty();
}

#[test]
fn a_switched_off_cache_finds_nothing() {
    let model = model();
    let mut rig = Rig::new(&model, EngineOptions { prefix_cache: false, ..options() });
    for _ in 0..2 {
        assert_eq!(rig.run(vec![job(prompt(7, 40), set(&[]), 4)])[0].cached_tokens, 0);
    }
    let stats = rig.engine.stats();
    assert_eq!((stats.kv_blocks_cached, stats.cached_tokens_total), (0, 0));
}
