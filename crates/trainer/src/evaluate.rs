//! Base against adapter on held-out files: loss, bits per byte, and exact first lines of real completions.

use atelier_kernels::argmax;
use atelier_model::{
    Adapter, AdapterGroup, Batch, KV_BLOCK_TOKENS, KvCache, Model, Row, Scratch, ServedAdapter, TrainScratch,
};
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::samples::{CompletionItem, Marks, Sample, TARGET_TOKENS_MAX, completion_items, held_out_windows};
use crate::split::SourceFile;
use crate::statistics::{ItemLoss, bits_per_byte, mean_loss, paired_ci95};
use crate::train::Packed;

/// Rows of one forward pass over windows.
const LOSS_ROWS_MAX: usize = 4096;

/// Completions decoded side by side: enough rows for the products, little enough memory.
const LANES: usize = 16;

/// Prompt rows of one forward pass.
const PREFILL_ROWS_MAX: usize = 1024;

/// Tokens kept before and after the place; together with the completion they stay within the windows that adapters
/// are trained on.
const AROUND_TOKENS_MAX: usize = 448;

/// Share of them that is kept after the place.
const SUFFIX_SHARE: f64 = 0.3;

/// Bytes of text encoded for each token that can be kept; code has under ten bytes a token.
const BYTES_PER_TOKEN_MAX: usize = 32;

/// Marks of a fill-in-the-middle prompt.
const MARK_TOKENS: usize = 3;

/// Tokens generated at most: the longest target, and a few more in case it is spelled in other tokens.
const GENERATED_TOKENS_MAX: usize = TARGET_TOKENS_MAX + 8;

/// How to judge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalOptions {
    /// Targets of one window.
    pub window_tokens: usize,
    /// Completion items at most.
    pub items_max: usize,
    /// Chooses the items and the resamples.
    pub seed: u64,
}

impl Default for EvalOptions {
    fn default() -> EvalOptions {
        EvalOptions { window_tokens: 512, items_max: 200, seed: 0 }
    }
}

/// One figure for the base and one for what the tenant would be served.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Arms {
    /// Without adapter.
    pub base: f64,
    /// With the adapter; equal to `base` where there is none.
    pub own: f64,
}

/// What a version is judged by, stored with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalCard {
    /// Completion items.
    pub items: usize,
    /// Files with text.
    pub files: usize,
    /// Windows that the losses are paired over.
    pub windows: usize,
    /// Target tokens of all windows.
    pub tokens: usize,
    /// Nats per token.
    pub loss: Arms,
    /// Bits per byte of text.
    pub bits_per_byte: Arms,
    /// Share of items whose first line came out exactly.
    pub exact_match: Arms,
    /// Base loss minus own loss, nats per token; positive is better.
    pub paired_loss_gain: f64,
    /// Its 95 % bootstrap interval over windows.
    pub paired_loss_ci95: [f64; 2],
}

/// Judges base and `own` on `test_files`, of which neither may have seen any.
///
/// # Errors
/// No text in the files; windows beyond the base's context.
pub fn evaluate(
    model: &Model,
    own: Option<&Adapter>,
    test_files: &[SourceFile],
    options: &EvalOptions,
) -> Result<EvalCard, TrainError> {
    let window_tokens = options.window_tokens.min(model.config().context_tokens_max);
    let windows = held_out_windows(model.tokenizer(), test_files, window_tokens);
    if windows.is_empty() {
        return Err(TrainError::NothingHeldOut);
    }
    let items = completion_items(model.tokenizer(), test_files, options.items_max, options.seed);
    let adapters: Vec<&Adapter> = own.into_iter().collect();
    let base_losses = window_losses(model, &[], &windows)?;
    let base_matches = first_line_matches(model, &[], &items)?;
    let (own_losses, own_matches) = match own {
        Some(_) => (window_losses(model, &adapters, &windows)?, first_line_matches(model, &adapters, &items)?),
        None => (base_losses.clone(), base_matches.clone()),
    };
    let arms = |of: fn(&[ItemLoss]) -> f64| Arms { base: of(&base_losses), own: of(&own_losses) };
    let gain = paired_ci95(&base_losses, &own_losses, options.seed);
    Ok(EvalCard {
        items: items.len(),
        files: test_files.iter().filter(|file| !file.text.is_empty()).count(),
        windows: windows.len(),
        tokens: base_losses.iter().map(|item| item.tokens).sum(),
        loss: arms(mean_loss),
        bits_per_byte: arms(bits_per_byte),
        exact_match: Arms { base: share(&base_matches), own: share(&own_matches) },
        paired_loss_gain: gain.mean,
        paired_loss_ci95: [gain.low, gain.high],
    })
}

fn share(matches: &[bool]) -> f64 {
    matches.iter().filter(|&&matches| matches).count() as f64 / matches.len().max(1) as f64
}

/// The loss of each window under base and `adapters`, as they are served: with rounded numbers.
///
/// # Errors
/// What the model refuses.
pub fn window_losses(model: &Model, adapters: &[&Adapter], windows: &[Sample]) -> Result<Vec<ItemLoss>, TrainError> {
    let served: Vec<Adapter> = adapters.iter().map(|adapter| adapter.rounded()).collect();
    losses_with(model, &mut TrainScratch::new(), &served.iter().collect::<Vec<_>>(), windows)
}

/// The loss of each window, with the numbers as they are trained, in memory that is used again.
pub(crate) fn losses_with(
    model: &Model,
    scratch: &mut TrainScratch,
    adapters: &[&Adapter],
    windows: &[Sample],
) -> Result<Vec<ItemLoss>, TrainError> {
    let mut items = Vec::with_capacity(windows.len());
    let mut losses = Vec::new();
    let mut rest = windows;
    while !rest.is_empty() {
        let mut rows = 0;
        let fitting = rest.iter().take_while(|window| {
            rows += window.tokens.len() - 1;
            rows <= LOSS_ROWS_MAX
        });
        let (group, after) = rest.split_at(fitting.count().max(1));
        let packed = Packed::new(group);
        model.token_losses(scratch, adapters, &packed.batch(), &mut losses)?;
        items.extend(group.iter().zip(&packed.sequences).map(|(window, sequence)| ItemLoss {
            nats: losses[sequence.clone()].iter().map(|&loss| f64::from(loss)).sum(),
            tokens: sequence.len(),
            bytes: window.bytes,
        }));
        rest = after;
    }
    Ok(items)
}

/// Whether greedy decoding writes the first line of each item's target exactly (white space at its end aside), with
/// `adapters` as they are served.
///
/// # Errors
/// What the model refuses.
pub fn first_line_matches(
    model: &Model,
    adapters: &[&Adapter],
    items: &[CompletionItem],
) -> Result<Vec<bool>, TrainError> {
    let mut matches = Vec::with_capacity(items.len());
    let served: Vec<ServedAdapter> = adapters.iter().map(|adapter| adapter.to_served()).collect();
    let blocks_per_lane = (AROUND_TOKENS_MAX + MARK_TOKENS + GENERATED_TOKENS_MAX).div_ceil(KV_BLOCK_TOKENS);
    let mut decoder = Decoder {
        model,
        adapters: served.iter().collect(),
        cache: model.new_kv_cache(LANES * blocks_per_lane),
        scratch: Scratch::new(),
        logits: Vec::new(),
        tables: (0..LANES).map(|lane| table(lane, blocks_per_lane)).collect(),
    };
    for group in items.chunks(LANES) {
        let lines = decoder.first_lines(group)?;
        let expected = group.iter().map(|item| first_line(&item.target));
        matches.extend(lines.iter().zip(expected).map(|(line, expected)| line.trim_end() == expected.trim_end()));
    }
    Ok(matches)
}

fn table(lane: usize, blocks: usize) -> Vec<u32> {
    (lane * blocks..(lane + 1) * blocks).map(|block| block as u32).collect()
}

fn first_line(text: &str) -> &str {
    text.split(['\n', '\r']).next().unwrap_or_default()
}

/// Greedy completions, a few side by side.
struct Decoder<'a> {
    model: &'a Model,
    adapters: Vec<&'a ServedAdapter>,
    cache: KvCache,
    scratch: Scratch,
    logits: Vec<f32>,
    tables: Vec<Vec<u32>>, // (LANES, blocks)
}

/// One completion under way.
struct Lane {
    table: u32,
    position: u32,
    next: u32,
    generated: Vec<u32>,
}

impl Decoder<'_> {
    fn first_lines(&mut self, items: &[CompletionItem]) -> Result<Vec<String>, TrainError> {
        let mut lanes = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            lanes.push(self.prefill(index as u32, &prompt(self.model, item))?);
        }
        let end = Marks::of(self.model.tokenizer()).end;
        let mut is_done: Vec<bool> = vec![false; lanes.len()];
        for _ in 0..GENERATED_TOKENS_MAX {
            for (lane, is_done) in lanes.iter_mut().zip(&mut is_done).filter(|(_, is_done)| !**is_done) {
                let eos = &self.model.config().eos_token_ids;
                *is_done = lane.next == end || eos.contains(&lane.next) || self.ends_line(lane);
                lane.generated.push(lane.next);
            }
            let running: Vec<usize> = (0..lanes.len()).filter(|&lane| !is_done[lane]).collect();
            let room = |lane: &Lane| (lane.position as usize) < self.model.config().context_tokens_max;
            if running.is_empty() || !running.iter().all(|&lane| room(&lanes[lane])) {
                break;
            }
            let rows: Vec<Row> = running.iter().map(|&lane| lanes[lane].row()).collect();
            let wanted: Vec<usize> = (0..rows.len()).collect();
            self.forward(&rows, &wanted)?;
            let vocab = self.model.config().vocab_size;
            for (&lane, logits) in running.iter().zip(self.logits.chunks_exact(vocab)) {
                lanes[lane].next = argmax(logits) as u32;
                lanes[lane].position += 1;
            }
        }
        let text = |lane: &Lane| self.model.tokenizer().decode(&lane.generated);
        Ok(lanes.iter().map(|lane| first_line(&text(lane)).to_owned()).collect())
    }

    fn ends_line(&self, lane: &Lane) -> bool {
        self.model.tokenizer().token_bytes(lane.next).iter().any(|byte| b"\r\n".contains(byte))
    }

    fn prefill(&mut self, table: u32, prompt: &[u32]) -> Result<Lane, TrainError> {
        let row = |position: usize| Row { token: prompt[position], position: position as u32, table };
        let mut start = 0;
        while start < prompt.len() {
            let end = (start + PREFILL_ROWS_MAX).min(prompt.len());
            let rows: Vec<Row> = (start..end).map(row).collect();
            let last = rows.len() - 1;
            let wanted = if end == prompt.len() { &[last][..] } else { &[] };
            self.forward(&rows, wanted)?;
            start = end;
        }
        let next = argmax(&self.logits) as u32;
        Ok(Lane { table, position: prompt.len() as u32, next, generated: Vec::new() })
    }

    fn forward(&mut self, rows: &[Row], logits_for: &[usize]) -> Result<(), TrainError> {
        let tables: Vec<&[u32]> = self.tables.iter().map(Vec::as_slice).collect();
        let group = AdapterGroup { rows: 0..rows.len(), adapters: &self.adapters };
        let groups = if self.adapters.is_empty() { Vec::new() } else { vec![group] };
        let batch = Batch { rows, tables: &tables, groups: &groups, logits_for };
        self.model.forward(&mut self.cache, &mut self.scratch, &batch, &mut self.logits)?;
        Ok(())
    }
}

impl Lane {
    fn row(&self) -> Row {
        Row { token: self.next, position: self.position, table: self.table }
    }
}

/// Prefix, suffix and middle mark, as the completion endpoint asks; the prefix alone for a base without marks.
fn prompt(model: &Model, item: &CompletionItem) -> Vec<u32> {
    let tokenizer = model.tokenizer();
    let room = model.config().context_tokens_max.saturating_sub(MARK_TOKENS + GENERATED_TOKENS_MAX);
    let room = room.min(AROUND_TOKENS_MAX);
    let suffix_max = (room as f64 * SUFFIX_SHARE) as usize;
    let prefix_max = room - suffix_max;
    let before = item.prefix.len().saturating_sub(prefix_max * BYTES_PER_TOKEN_MAX);
    let after = item.suffix.len().min(suffix_max * BYTES_PER_TOKEN_MAX);
    let prefix = tokenizer.encode_plain(&item.prefix[item.prefix.ceil_char_boundary(before)..]);
    let suffix = tokenizer.encode_plain(&item.suffix[..item.suffix.floor_char_boundary(after)]);
    let prefix = &prefix[prefix.len().saturating_sub(prefix_max)..];
    let suffix = &suffix[..suffix.len().min(suffix_max)];
    let marks = Marks::of(tokenizer);
    match marks.fim {
        Some(fim) => [&[fim.prefix], prefix, &[fim.suffix], suffix, &[fim.middle]].concat(),
        None => [&[marks.end], prefix].concat(),
    }
}
