//! What can go wrong outside of a caller's own mistake in shapes (those panic).

use thiserror::Error;

/// An error of this crate.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum KernelsError {
    /// A tier's name that is none of ours.
    #[error("no kernel tier is named {name:?}; use portable, avx2, avx512 or avx512-bf16")]
    UnknownTier {
        /// The name given.
        name: String,
    },
    /// A weight format's name that is none of ours.
    #[error("no weight format is named {name:?}; use bf16 or int8")]
    UnknownWeightFormat {
        /// The name given.
        name: String,
    },
}
