//! One tenant's training: split, cap, recipe, progress.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use atelier_model::{Adapter, AdapterFiles, Model, Tokenizer};
use atelier_platform::pipeline::split;
use atelier_trainer::{Observer, Sample, SourceFile, TrainEvent, TrainOptions, held_out_windows, train};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use crate::host::write_whole;
use crate::packages::Package;

/// How often the bar is drawn.
const BAR_INTERVAL: Duration = Duration::from_millis(250);

/// What is learned from, and where it differs from the recipe. Equal settings make figures comparable, so they are
/// kept with the results.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LearnSettings {
    /// Tokens of training files that one epoch sees at most; whole files in random order, the last one cut
    #[arg(long, default_value_t = 150_000)]
    pub train_tokens_max: usize,
    /// Tokens of validation windows at most, spread over the files
    #[arg(long, default_value_t = 8_000)]
    pub validation_tokens_max: usize,
    /// Decides the split and everything random in training
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Instead of the recipe's
    #[arg(long)]
    pub rank: Option<usize>,
    /// Instead of the recipe's
    #[arg(long)]
    pub learning_rate: Option<f32>,
    /// Instead of the recipe's
    #[arg(long)]
    pub epochs: Option<usize>,
    /// Instead of the recipe's
    #[arg(long)]
    pub window_tokens: Option<usize>,
    /// Instead of the recipe's
    #[arg(long)]
    pub sequences_per_step: Option<usize>,
    /// Instead of the recipe's
    #[arg(long)]
    pub fim_share: Option<f32>,
    /// Instead of the recipe's
    #[arg(long)]
    pub dropout: Option<f32>,
    /// Instead of the recipe's
    #[arg(long)]
    pub patience: Option<usize>,
}

impl LearnSettings {
    /// The recipe for that much text with these changes.
    pub fn options(&self, train_tokens: usize, hidden_size: usize) -> TrainOptions {
        let recipe = TrainOptions::recipe(train_tokens, hidden_size);
        TrainOptions {
            rank: self.rank.unwrap_or(recipe.rank),
            learning_rate: self.learning_rate.unwrap_or(recipe.learning_rate),
            epochs: self.epochs.unwrap_or(recipe.epochs),
            window_tokens: self.window_tokens.unwrap_or(recipe.window_tokens),
            sequences_per_step: self.sequences_per_step.unwrap_or(recipe.sequences_per_step),
            fim_share: self.fim_share.unwrap_or(recipe.fim_share),
            dropout: self.dropout.unwrap_or(recipe.dropout),
            patience: self.patience.unwrap_or(recipe.patience),
            seed: self.seed,
            // A package takes minutes: what is interrupted starts anew.
            checkpoint_steps: 0,
            ..recipe
        }
    }
}

/// A tenant's files, ready to learn from and to be judged on.
pub struct Prepared {
    /// Its training files, capped.
    pub train: Vec<SourceFile>,
    /// Tokens of them.
    pub train_tokens: usize,
    /// Files that decide when to stop.
    pub validation: Vec<SourceFile>,
    /// Files that nothing else sees.
    pub test: Vec<SourceFile>,
}

impl Prepared {
    /// Splits as the product does, then caps the training part.
    pub fn new(tokenizer: &Tokenizer, files: Vec<SourceFile>, settings: &LearnSettings) -> Result<Prepared> {
        let split = split::cut(files, settings.seed);
        ensure!(!split.test.is_empty() && !split.validation.is_empty(), "too few files to hold some out");
        let (train, train_tokens) = cap(tokenizer, split.train, settings);
        Ok(Prepared { train, train_tokens, validation: split.validation, test: split.test })
    }
}

/// Whole files in an order fixed by the seed while they fit, the first that does not fit cut at a line.
fn cap(tokenizer: &Tokenizer, mut files: Vec<SourceFile>, settings: &LearnSettings) -> (Vec<SourceFile>, usize) {
    let order = |file: &SourceFile| {
        let mut text = file.path.clone().into_bytes();
        text.extend(settings.seed.to_le_bytes());
        // FNV-1a: an order that has nothing to do with names and sizes is all that is asked.
        text.iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
    };
    files.sort_by_cached_key(order);
    let mut kept = Vec::new();
    let mut tokens = 0;
    for mut file in files {
        let room = settings.train_tokens_max - tokens;
        let count = tokenizer.encode_plain(&file.text).len();
        if count <= room {
            tokens += count;
            kept.push(file);
            continue;
        }
        let wished = file.text.floor_char_boundary(file.text.len() * room / count);
        file.text.truncate(file.text[..wished].rfind('\n').map_or(0, |end| end + 1));
        tokens += tokenizer.encode_plain(&file.text).len();
        kept.push(file);
        break;
    }
    kept.sort_by(|left, right| left.path.cmp(&right.path));
    (kept, tokens)
}

/// Evenly spread windows that together have at most `tokens_max` targets.
fn thin(windows: Vec<Sample>, tokens_max: usize) -> Vec<Sample> {
    let total: usize = windows.iter().map(|window| window.tokens.len() - 1).sum();
    let step = total.div_ceil(tokens_max.max(1)).max(1);
    windows.into_iter().step_by(step).collect()
}

/// What training took and gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingRecord {
    /// Files of the training part after the cap.
    pub files: usize,
    /// Tokens of them: one epoch.
    pub train_tokens: usize,
    /// What it was trained with.
    pub options: TrainOptions,
    /// Steps taken.
    pub steps: usize,
    /// Target tokens learned from, all epochs.
    pub tokens: usize,
    /// Wall time with validations.
    pub seconds: f64,
    /// Validation loss of the base, nats per token.
    pub base_validation_loss: f64,
    /// Of the adapter that was kept.
    pub validation_loss: f64,
}

impl TrainingRecord {
    /// Target tokens per second, validations included.
    pub fn tokens_per_second(&self) -> f64 {
        self.tokens as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }
}

/// Trains one adapter; `label` names it in the bar.
pub fn learn(
    model: &Model,
    prepared: &Prepared,
    options: TrainOptions,
    settings: &LearnSettings,
    label: &str,
) -> Result<(Adapter, TrainingRecord)> {
    let windows = held_out_windows(model.tokenizer(), &prepared.validation, options.window_tokens);
    let windows = thin(windows, settings.validation_tokens_max);
    let bytes = |files: &[SourceFile]| files.iter().map(|file| file.text.len()).sum::<usize>();
    eprintln!(
        "{label}: {} files to learn from, {} tokens; {} files, {} bytes for validation; {} files, {} bytes for the test",
        prepared.train.len(),
        prepared.train_tokens,
        prepared.validation.len(),
        bytes(&prepared.validation),
        prepared.test.len(),
        bytes(&prepared.test),
    );
    let mut progress = Progress::new(label);
    let start = Instant::now();
    let trained = train(model, &prepared.train, &windows, &options, None, &mut progress)
        .with_context(|| format!("training on {label} failed"))?;
    progress.bar.finish_and_clear();
    let record = TrainingRecord {
        files: prepared.train.len(),
        train_tokens: prepared.train_tokens,
        options,
        steps: trained.steps,
        tokens: trained.tokens,
        seconds: start.elapsed().as_secs_f64(),
        base_validation_loss: trained.base_validation_loss,
        validation_loss: trained.validation_loss,
    };
    Ok((trained.adapter, record))
}

/// A bar of steps on a terminal; a line for each validation elsewhere.
struct Progress {
    bar: ProgressBar,
    label: String,
    speed: f64,
}

impl Progress {
    fn new(label: &str) -> Progress {
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{prefix:<28} {bar:32} {pos}/{len} {msg}");
        bar.set_style(style.expect("the template is valid"));
        bar.set_prefix(label.to_owned());
        bar.enable_steady_tick(BAR_INTERVAL);
        Progress { bar, label: label.to_owned(), speed: 0.0 }
    }
}

impl Observer for Progress {
    fn event(&mut self, event: &TrainEvent) -> ControlFlow<()> {
        match event {
            TrainEvent::Started { steps_total, .. } => self.bar.set_length(*steps_total as u64),
            TrainEvent::Step { step, loss, tokens_per_second, .. } => {
                self.speed = *tokens_per_second;
                self.bar.set_position(*step as u64);
                self.bar.set_message(format!("loss {loss:.3}, {tokens_per_second:.0} tok/s"));
            }
            TrainEvent::Validation { step, loss, .. } if self.bar.is_hidden() => {
                eprintln!("{:<28} step {step}: validation loss {loss:.4}, {:.0} tok/s", self.label, self.speed);
            }
            TrainEvent::Validation { .. } | TrainEvent::Stopped { .. } => {}
        }
        ControlFlow::Continue(())
    }

    fn checkpoint(&mut self, _state: &[u8]) {}
}

/// Keeps an adapter in PEFT format under `folder`.
pub fn save(model: &Model, adapter: &Adapter, folder: &Path, base_name: &str) -> Result<()> {
    let files = adapter.to_peft(model.digest(), base_name);
    write_whole(&folder.join("adapter_config.json"), &files.config)?;
    write_whole(&folder.join("adapter_model.safetensors"), &files.weights)
}

/// Reads what [`save`] kept.
pub fn saved(model: &Model, folder: &Path) -> Result<Adapter> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let files = AdapterFiles { config: read("adapter_config.json")?, weights: read("adapter_model.safetensors")? };
    Ok(Adapter::from_peft(&files, model.config(), model.digest())?)
}

/// How a package is called while it is worked on.
pub fn label(package: &Package, index: usize, count: usize) -> String {
    format!("[{}/{count}] {}", index + 1, package.name)
}

#[cfg(test)]
mod tests {
    use atelier_trainer::SampleKind;

    use super::*;

    #[test]
    fn validation_is_thinned_evenly() {
        let window = |mark: u32| Sample { tokens: vec![mark; 11], bytes: 40, kind: SampleKind::Window };
        let windows: Vec<Sample> = (0..10).map(window).collect();
        let marks =
            |tokens_max| thin(windows.clone(), tokens_max).iter().map(|kept| kept.tokens[0]).collect::<Vec<_>>();
        assert_eq!(marks(100), (0..10).collect::<Vec<_>>());
        assert_eq!(marks(50), [0, 2, 4, 6, 8]);
        assert_eq!(marks(34), [0, 3, 6, 9]);
    }

    #[test]
    fn settings_change_the_recipe_only_where_they_say_so() {
        let settings = LearnSettings {
            train_tokens_max: 1,
            validation_tokens_max: 1,
            seed: 7,
            rank: Some(4),
            learning_rate: None,
            epochs: None,
            window_tokens: None,
            sequences_per_step: None,
            fim_share: None,
            dropout: None,
            patience: None,
        };
        let recipe = TrainOptions::recipe(50_000, 320);
        let expected = TrainOptions { rank: 4, seed: 7, checkpoint_steps: 0, ..recipe };
        assert_eq!(settings.options(50_000, 320), expected);
    }
}
