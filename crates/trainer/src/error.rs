//! What can go wrong while learning or judging.

use atelier_model::ModelError;

/// Why training or evaluation stopped without a result.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The options cannot be trained with.
    #[error("training option `{option}` is out of range")]
    Option {
        /// Its name.
        option: &'static str,
    },
    /// There is nothing to learn from.
    #[error("the training files hold {tokens} tokens; at least {needed} are needed")]
    TooLittleText {
        /// Tokens found.
        tokens: usize,
        /// Tokens that fill one window.
        needed: usize,
    },
    /// Nothing to judge by: every held-out file was empty or a near-duplicate.
    #[error("there is no held-out text")]
    NothingHeldOut,
    /// Windows are longer than the base model can read.
    #[error("windows of {window_tokens} tokens exceed the base model's context of {context_tokens_max}")]
    WindowTooLong {
        /// Asked for.
        window_tokens: usize,
        /// What the base model can read.
        context_tokens_max: usize,
    },
    /// A checkpoint that cannot be continued from.
    #[error("the checkpoint cannot be resumed: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// Loss or gradient became infinite or not a number.
    #[error("training diverged at step {step}")]
    Diverged {
        /// The step, from 1.
        step: usize,
    },
    /// The observer asked to stop.
    #[error("training was cancelled")]
    Cancelled,
    /// The model refused.
    #[error("the base model failed")]
    Model(#[from] ModelError),
}

/// Why a checkpoint was refused; training may then start anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// It does not begin like a checkpoint.
    #[error("it is not a training checkpoint")]
    NotACheckpoint,
    /// Written by another version of this program.
    #[error("its format is version {found}, this program reads {known}")]
    Version {
        /// In the file.
        found: u32,
        /// What we write.
        known: u32,
    },
    /// Cut short or changed.
    #[error("it is damaged")]
    Damaged,
    /// Made with another base, other options, or other data.
    #[error("it belongs to another base model, other options or other files")]
    Mismatch,
}
