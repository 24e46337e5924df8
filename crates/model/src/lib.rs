//! One transformer over `atelier-kernels`: a Hugging Face folder in, logits out, with up to two LoRA adapters a row;
//! and, for a frozen base, losses and adapter gradients. It does file reading at load time and no other I/O, and
//! nothing here is async.
//!
//! Layout, in reading order: [`Config`] says the shapes and refuses what we cannot compute; `weights` reads
//! safetensors into packed matrices; [`Tokenizer`] and [`TextStream`] turn text into ids and back; [`Adapter`] is LoRA
//! in memory and `peft` its file format; [`KvCache`] is paged memory of keys and values; [`Model`] ties them together;
//! `forward` reads like the paper; `backward` is its hand-written mirror image.
//!
//! Invariants:
//! - a row's logits depend on its own sequence and adapters only, bit for bit: never on what shares the batch, on how
//!   its prompt was chunked, or on the number of threads;
//! - a row without an adapter is bit-equal to the base;
//! - nothing read from a file is trusted: sizes are capped before memory is taken, shapes and finiteness are checked,
//!   and what is not implemented is refused by name.

mod adapter;
mod backward;
mod checkpoint;
mod config;
mod digest;
mod error;
mod forward;
mod kv;
mod model;
mod peft;
mod text_stream;
mod tokenizer;
mod weights;

pub use atelier_kernels::{Compute, Tier, WeightFormat};

pub use adapter::{
    Adapter, AdapterGradients, AdapterPair, LoraPair, PairGradient, Projection, ServedAdapter, ServedPair,
};
pub use backward::{Dropout, LossSum, TrainBatch, TrainScratch};
pub use config::{Config, Family};
pub use digest::Digest;
pub use error::ModelError;
pub use forward::{ADAPTERS_PER_ROW_MAX, AdapterGroup, Batch, Row, Scratch};
pub use kv::{KV_BLOCK_TOKENS, KvCache};
pub use model::{LoadOptions, Model};
pub use peft::{ADAPTER_CONFIG_BYTES_MAX, ADAPTER_HEADER_BYTES_MAX, ADAPTER_RANK_MAX, AdapterFiles};
pub use text_stream::TextStream;
pub use tokenizer::{FimTokens, Tokenizer};
