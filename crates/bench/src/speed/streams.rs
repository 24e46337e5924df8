//! Serving speed: clients of one engine, alone and sixteen at once, with and without adapters.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use atelier_engine::{AdapterSet, CompletionJob, Engine, EngineOptions, Event, Sampling};
use atelier_model::{KV_BLOCK_TOKENS, Model};
use futures_util::future::try_join_all;

use super::adapters::{RandomAdapters, digest};
use super::{Selection, Workload, median};
use crate::figures::Figures;
use crate::random::SplitMix64;

/// Clients at once in every figure of many streams.
const STREAMS: usize = 16;

/// One model under measurement.
pub struct Case<'a> {
    /// Of the model.
    pub name: &'a str,
    /// Format of its weights.
    pub weights: &'a str,
    /// Sizes.
    pub workload: Workload,
    /// What is asked for.
    pub selection: &'a Selection<'a>,
}

/// Which adapters a group of clients runs with.
#[derive(Clone, Copy)]
enum Arm {
    None,
    Shared,
    OneEach,
}

impl Arm {
    fn set(self, stream: usize) -> AdapterSet {
        match self {
            Arm::None => AdapterSet::none(),
            Arm::Shared => AdapterSet::of(&[digest(0)]),
            Arm::OneEach => AdapterSet::of(&[digest(stream)]),
        }
    }
}

/// Every serving figure of one model.
pub fn measure(model: &Arc<Model>, case: &Case<'_>, figures: &mut Figures) -> Result<()> {
    let adapters = RandomAdapters::new(model.config(), STREAMS);
    let bench = Bench { engine: start(model, case.workload, adapters), model, case };
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let result = runtime.block_on(bench.measure(figures));
    bench.engine.shutdown();
    result
}

/// The engine as it serves, but without reuse of prompts and without early ends.
fn start(model: &Arc<Model>, workload: Workload, adapters: RandomAdapters) -> Engine {
    let tokens = (workload.prompt_tokens + workload.new_tokens).max(workload.prefill_tokens + 1);
    let options = EngineOptions {
        slots: STREAMS,
        kv_blocks: STREAMS * (tokens.div_ceil(KV_BLOCK_TOKENS) + 1),
        adapter_bytes_max: 2 * adapters.bytes(),
        prefix_cache: false,
        ignore_end_tokens: true,
        ..EngineOptions::default()
    };
    Engine::start(Arc::clone(model), Arc::new(adapters), options)
}

struct Bench<'a> {
    engine: Engine,
    model: &'a Model,
    case: &'a Case<'a>,
}

/// When things happened to one client.
struct Times {
    submitted: Instant,
    tokens: Vec<Instant>,
    ended: Instant,
}

impl Bench<'_> {
    async fn measure(&self, figures: &mut Figures) -> Result<()> {
        self.warm_up().await?;
        let Workload { prompt_tokens, new_tokens, .. } = self.case.workload;
        let sizes = format!("{prompt_tokens} + {new_tokens} tokens");
        for (name, arm) in [("decode.1_stream", Arm::None), ("decode.1_stream_adapter", Arm::Shared)] {
            if self.wants(name) {
                let speed = self.one_stream(arm).await?;
                self.add(figures, name, speed, &sizes);
            }
        }
        for (suffix, arm) in
            [("16_streams", Arm::None), ("16_streams_1_adapter", Arm::Shared), ("16_streams_16_adapters", Arm::OneEach)]
        {
            let (decode, requests) = (format!("decode.{suffix}"), format!("requests.{suffix}"));
            if self.wants(&decode) || self.wants(&requests) {
                let (decode_speed, request_speed) = self.many_streams(arm).await?;
                self.add(figures, &decode, decode_speed, &sizes);
                self.add(figures, &requests, request_speed, &sizes);
            }
        }
        if self.wants("prefill") {
            let prompt = self.case.workload.prefill_tokens;
            let seconds = self.first_token(Arm::None, prompt, self.case.workload.repeats).await?;
            self.add(figures, "prefill", prompt as f64 / seconds, &format!("{prompt} tokens"));
        }
        if self.wants("first_token") {
            let seconds = self.first_token(Arm::Shared, prompt_tokens, self.case.workload.first_tokens).await?;
            self.add(figures, "first_token", 1e3 * seconds, &format!("{prompt_tokens} tokens"));
        }
        Ok(())
    }

    fn wants(&self, name: &str) -> bool {
        self.case.selection.has(self.case.name, self.case.weights, name)
    }

    fn add(&self, figures: &mut Figures, name: &str, value: f64, what: &str) {
        figures.add(self.case.name, self.case.weights, name, value, what);
    }

    /// Brings every adapter into memory and every buffer to its size.
    async fn warm_up(&self) -> Result<()> {
        let prompt = self.case.workload.prompt_tokens;
        let streams = (0..STREAMS).map(|stream| self.stream(self.job(Arm::OneEach, stream, prompt, 2)));
        try_join_all(streams).await.map(drop)
    }

    /// Tokens per second of a client that is alone, after its first token.
    async fn one_stream(&self, arm: Arm) -> Result<f64> {
        let Workload { prompt_tokens, new_tokens, repeats, .. } = self.case.workload;
        let mut speeds = Vec::new();
        for repeat in 0..repeats {
            let times = self.stream(self.job(arm, repeat, prompt_tokens, new_tokens)).await?;
            let span = times.tokens[new_tokens - 1] - times.tokens[0];
            speeds.push((new_tokens - 1) as f64 / span.as_secs_f64());
        }
        Ok(median(speeds))
    }

    /// Tokens per second while all decode, and requests per second from the first submission to the last end.
    async fn many_streams(&self, arm: Arm) -> Result<(f64, f64)> {
        let Workload { prompt_tokens, new_tokens, repeats, .. } = self.case.workload;
        let (mut decode, mut requests) = (Vec::new(), Vec::new());
        for _ in 0..repeats {
            let streams = (0..STREAMS).map(|stream| self.stream(self.job(arm, stream, prompt_tokens, new_tokens)));
            let times = try_join_all(streams).await?;
            decode.push(rate_while_all_decode(&times)?);
            let first = times.iter().map(|times| times.submitted).min().expect("there are streams");
            let last = times.iter().map(|times| times.ended).max().expect("there are streams");
            requests.push(STREAMS as f64 / (last - first).as_secs_f64());
        }
        Ok((median(decode), median(requests)))
    }

    /// Seconds from submission to the first token.
    async fn first_token(&self, arm: Arm, prompt_tokens: usize, repeats: usize) -> Result<f64> {
        let mut seconds = Vec::new();
        for repeat in 0..repeats {
            let times = self.stream(self.job(arm, repeat, prompt_tokens, 1)).await?;
            seconds.push((times.tokens[0] - times.submitted).as_secs_f64());
        }
        Ok(median(seconds))
    }

    /// A job with a random prompt; with [`Arm::Shared`] all run with one adapter whatever their number.
    fn job(&self, arm: Arm, stream: usize, prompt_tokens: usize, new_tokens: usize) -> CompletionJob {
        let mut random = SplitMix64(stream as u64);
        let vocab = self.model.config().vocab_size;
        CompletionJob {
            prompt: (0..prompt_tokens).map(|_| random.below(vocab) as u32).collect(),
            adapters: arm.set(stream),
            cache_salt: [0; 32],
            client: stream as u64,
            weight: 1,
            sampling: Sampling::greedy(),
            stop: Vec::new(),
            tokens_max: new_tokens,
            logprobs: None,
            prompt_logprobs: false,
        }
    }

    async fn stream(&self, job: CompletionJob) -> Result<Times> {
        let expected = job.tokens_max;
        let submitted = Instant::now();
        let mut generation = self.engine.submit(job)?;
        let mut tokens = Vec::with_capacity(expected);
        while let Some(event) = generation.next().await {
            match event {
                Event::Token { .. } => tokens.push(Instant::now()),
                Event::Failed(error) => bail!("a request failed: {error}"),
                Event::Started { .. } | Event::PromptLogprobs(_) | Event::Finished { .. } => {}
            }
        }
        ensure!(tokens.len() == expected, "a request got {} tokens of {expected}", tokens.len());
        Ok(Times { submitted, tokens, ended: Instant::now() })
    }
}

/// Tokens of all streams between the moment when the last has its first and the moment when the first has its last.
fn rate_while_all_decode(times: &[Times]) -> Result<f64> {
    let start = times.iter().map(|times| times.tokens[0]).max().expect("there are streams");
    let end = times.iter().map(|times| times.tokens[times.tokens.len() - 1]).min().expect("there are streams");
    let span = end.saturating_duration_since(start);
    ensure!(span > Duration::ZERO, "the first stream ended before the last began: more new tokens are needed");
    let in_span = |moment: &&Instant| **moment > start && **moment <= end;
    let count: usize = times.iter().map(|times| times.tokens.iter().filter(in_span).count()).sum();
    Ok(count as f64 / span.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_counts_only_while_all_decode() {
        let zero = Instant::now();
        let at = |milliseconds: &[u64]| {
            let tokens: Vec<Instant> = milliseconds.iter().map(|&ms| zero + Duration::from_millis(ms)).collect();
            Times { submitted: zero, ended: tokens[tokens.len() - 1], tokens }
        };
        // Both decode from 20 to 40 ms: two tokens each.
        let times = [at(&[10, 20, 30, 40]), at(&[20, 30, 40, 50])];
        let rate = rate_while_all_decode(&times).expect("they overlap");
        assert!((rate - 200.0).abs() < 1e-9, "{rate}");
        assert!(rate_while_all_decode(&[at(&[1, 2]), at(&[3, 4])]).is_err());
    }
}
