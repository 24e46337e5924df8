//! What shares the batch plays no part.

use atelier_engine::{CompletionJob, EngineOptions, Sampling};
use atelier_kernels::{Tier, WeightFormat, argmax, log_sum_exp};
use atelier_model::{AdapterGroup, Batch, KV_BLOCK_TOKENS, Model, Row, Scratch};

use crate::support::*;

/// Tokens of each completion.
const TOKENS: usize = 20;

/// Greedy tokens and the log probability of each, by the model alone: the whole prompt in one pass, then token by
/// token. Nothing of the engine takes part.
fn reference(model: &Model, prompt: &[u32], adapters: &[u8]) -> Vec<(u32, f32)> {
    let adapters: Vec<_> = adapters.iter().map(|index| adapter(model, *index).to_served()).collect();
    let adapters: Vec<_> = adapters.iter().collect();
    let mut tokens = prompt.to_vec();
    let blocks = (prompt.len() + TOKENS).div_ceil(KV_BLOCK_TOKENS);
    let table: Vec<u32> = (0..blocks as u32).collect();
    let (mut cache, mut scratch, mut logits) = (model.new_kv_cache(blocks), Scratch::new(), Vec::new());
    let (mut computed, mut made) = (0, Vec::new());
    while made.len() < TOKENS {
        let rows: Vec<Row> = (computed..tokens.len())
            .map(|position| Row { token: tokens[position], position: position as u32, table: 0 })
            .collect();
        let groups = [AdapterGroup { rows: 0..rows.len(), adapters: &adapters }];
        let groups = if adapters.is_empty() { &[][..] } else { &groups[..] };
        let batch = Batch { rows: &rows, tables: &[&table], groups, logits_for: &[rows.len() - 1] };
        model.forward(&mut cache, &mut scratch, &batch, &mut logits).expect("a valid batch");
        computed = tokens.len();
        let id = argmax(&logits);
        made.push((id as u32, logits[id] - log_sum_exp(Tier::Portable, &logits)));
        tokens.push(id as u32);
    }
    made
}

/// Sixteen jobs on sixteen different adapter sets, one of them empty, some of two; prompts of many lengths.
fn sixteen_jobs(sampling: impl Fn(u64) -> Sampling) -> Vec<CompletionJob> {
    let sets: [&[u8]; 16] =
        [&[1], &[2], &[], &[3], &[4], &[5], &[1, 2], &[6], &[7], &[8], &[2, 1], &[9], &[10], &[11], &[12, 3], &[13]];
    let job_of = |(index, indexes): (usize, &&[u8])| {
        let prompt = prompt(index as u64 / 2, 3 + 7 * index);
        CompletionJob { sampling: sampling(index as u64), ..job(prompt, set(indexes), TOKENS) }
    };
    sets.iter().enumerate().map(job_of).collect()
}

fn formats() -> [WeightFormat; 2] {
    [WeightFormat::Bf16, WeightFormat::Int8]
}

#[test]
fn sixteen_streams_on_sixteen_adapters_give_what_each_gives_alone() {
    for tier in Tier::all_available() {
        for format in formats() {
            let model = model_in(tier, format);
            for jobs in [sixteen_jobs(|_| Sampling::greedy()), sixteen_jobs(seeded)] {
                let together = Rig::new(&model, options()).run(jobs.clone());
                for (job, together) in jobs.iter().zip(together) {
                    assert_eq!(together.tokens.len(), TOKENS);
                    // Logprobs are compared to the bit as well.
                    assert_eq!(together, alone(&model, job), "{:?} in {tier} {format:?}", job.adapters);
                }
            }
        }
    }
}

#[test]
fn the_engine_gives_what_the_model_gives_and_no_adapter_is_the_base() {
    for tier in Tier::all_available() {
        for format in formats() {
            let model = model_in(tier, format);
            let jobs = sixteen_jobs(|_| Sampling::greedy());
            let together = Rig::new(&model, options()).run(jobs.clone());
            for (job, together) in jobs.iter().zip(together) {
                let indexes: Vec<u8> = job.adapters.digests().iter().map(|digest| digest.0[0]).collect();
                for (step, (id, logprob)) in reference(&model, &job.prompt, &indexes).into_iter().enumerate() {
                    let made = together.logprobs[step].as_ref().expect("asked for");
                    assert_eq!(made.id, id, "{indexes:?} in {tier} {format:?}, token {step}");
                    // Two roundings of the same logits: the sums differ in precision, not in what is summed.
                    assert!((made.logprob - logprob).abs() < 1e-4, "{} for {logprob}", made.logprob);
                }
            }
        }
    }
}

#[test]
fn adapters_change_the_answer_and_their_order_is_kept() {
    let model = model();
    let of = |indexes: &[u8]| alone(&model, &job(prompt(1, 30), set(indexes), TOKENS)).logprobs;
    let answers = [of(&[]), of(&[1]), of(&[2]), of(&[1, 2])];
    for (index, answer) in answers.iter().enumerate() {
        assert!(answers[..index].iter().all(|other| other != answer), "set {index} answers like another");
    }
}

#[test]
fn chunks_budgets_and_slots_play_no_part() {
    let model = model();
    let jobs = sixteen_jobs(seeded);
    let expected: Vec<Completion> = jobs.iter().map(|job| alone(&model, job)).collect();
    for (prefill_chunk, step_token_budget, slots) in [(1, 1, 1), (3, 7, 5), (16, 16, 16), (256, 512, 16), (5, 64, 3)] {
        let sizes = EngineOptions { prefill_chunk, step_token_budget, slots, ..options() };
        let mut rig = Rig::new(&model, sizes);
        assert_eq!(rig.run(jobs.clone()), expected, "chunk {prefill_chunk}, budget {step_token_budget}");
        rig.assert_empty();
    }
}

#[test]
fn a_long_prompt_does_not_hold_up_those_that_decode() {
    let model = model();
    let mut rig = Rig::new(&model, options());
    let mut quick = rig.submit(job(prompt(1, 8), set(&[]), 40));
    rig.step();
    let _long = rig.submit(job(prompt(2, 200), set(&[]), 4));
    for turn in 0..5 {
        let report = rig.step();
        assert_eq!((report.decode_rows, report.prefill_rows), (1, 24), "turn {turn}");
    }
    quick.read();
    assert_eq!(quick.completion.tokens.len(), 6);
}

#[test]
fn prompt_logprobs_are_those_of_generation() {
    let model = model();
    let first = CompletionJob { logprobs: Some(2), ..job(prompt(4, 21), set(&[3]), 12) };
    let generated = alone(&model, &first);
    let whole = [first.prompt.clone(), generated.tokens.clone()].concat();
    // Warm cache: prompt log probabilities must come from a full pass all the same.
    let mut rig = Rig::new(&model, options());
    rig.run(vec![first.clone()]);
    let echo = CompletionJob { prompt: whole.clone(), tokens_max: 0, prompt_logprobs: true, ..first.clone() };
    let answers = rig.run(vec![echo.clone(), CompletionJob { tokens_max: 1, ..echo }]);
    for (answer, tokens_made) in answers.iter().zip([0, 1]) {
        let all = answer.prompt_logprobs.as_ref().expect("asked for");
        assert_eq!((all.len(), answer.tokens.len(), answer.cached_tokens), (whole.len(), tokens_made, 0));
        assert!(all[0].is_none());
        assert!(all[1..].iter().zip(&whole[1..]).all(|(logprob, id)| logprob.as_ref().is_some_and(|l| l.id == *id)));
        assert_eq!(all[first.prompt.len()..], generated.logprobs, "to the bit");
    }
    rig.assert_empty();
}
