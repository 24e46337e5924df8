//! Where a completion ends.

use atelier_engine::{CompletionJob, EngineOptions, FinishReason, Sampling};

use crate::support::*;

fn hot(seed: u64) -> Sampling {
    Sampling { temperature: 1.5, top_p: 1.0, top_k: 0, seed }
}

#[test]
fn an_end_of_text_token_ends_and_is_not_reported() {
    let model = model();
    let special = |name| model.tokenizer().special(name);
    let mut ends = model.config().eos_token_ids.clone();
    ends.extend(
        ["<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"].map(special).into_iter().flatten(),
    );
    ends.extend(["<|repo_name|>", "<|file_sep|>", "<|endoftext|>"].map(special).into_iter().flatten());
    let mut stopped = 0;
    for seed in 0..12 {
        let job = CompletionJob { sampling: hot(seed), ..job(prompt(seed, 8), set(&[]), 60) };
        let endless = alone(&model, &job);
        let mut rig = Rig::new(&model, EngineOptions { ignore_end_tokens: false, ..options() });
        let answer = rig.run(vec![job]).remove(0);
        match endless.tokens.iter().position(|id| ends.contains(id)) {
            Some(end) => {
                assert_eq!(answer.tokens, endless.tokens[..end]);
                assert_eq!(answer.reason, Some(FinishReason::Stop));
                stopped += 1;
            }
            None => {
                assert_eq!(answer.tokens, endless.tokens);
                assert_eq!(answer.reason, Some(FinishReason::Length));
            }
        }
    }
    assert!(stopped > 0, "no seed ran into an end: choose others");
}

#[test]
fn stop_strings_cut_the_text_wherever_tokens_end() {
    let model = model();
    for seed in 0..6 {
        let free = CompletionJob { sampling: hot(seed), ..job(prompt(seed, 8), set(&[1]), 30) };
        let whole = alone(&model, &free);
        let characters: Vec<char> = whole.text.chars().collect();
        for (start, len) in [(0, 1), (2, 3), (5, 2), (9, 4)] {
            if start + len > characters.len() {
                continue;
            }
            let stop: String = characters[start..start + len].iter().collect();
            let job = CompletionJob { stop: vec![stop.clone(), "not in the text".to_owned()], ..free.clone() };
            let answer = alone(&model, &job);
            let cut = whole.text.find(&stop).expect("taken from the text");
            assert_eq!(answer.text, whole.text[..cut], "seed {seed}, stop {stop:?}");
            assert_eq!(answer.reason, Some(FinishReason::Stop));
            assert_eq!(answer.tokens, whole.tokens[..answer.tokens.len()]);
        }
    }
}

#[test]
fn the_length_ends_it_exactly() {
    let model = model();
    let context = model.config().context_tokens_max;
    for (prompt_len, tokens_max) in [(1, 1), (1, 0), (16, 1), (16, 16), (17, 15), (context - 1, 1), (1, context - 1)] {
        let answer = alone(&model, &job(prompt(2, prompt_len), set(&[]), tokens_max));
        assert_eq!((answer.tokens.len(), answer.reason), (tokens_max, Some(FinishReason::Length)));
        assert!(answer.started);
    }
}

#[test]
fn text_is_that_of_the_tokens() {
    let model = model();
    for seed in 0..6 {
        let answer = alone(&model, &CompletionJob { sampling: hot(seed), ..job(prompt(seed, 8), set(&[]), 40) });
        assert_eq!(answer.text, model.tokenizer().decode(&answer.tokens));
    }
}
