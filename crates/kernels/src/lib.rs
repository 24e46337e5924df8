//! Maths on slices: the products, norms, attention and losses of a transformer, forward and backward.
//!
//! SIMD is chosen at run time by a [`Tier`] and threads by a [`Compute`], the first argument of every kernel. Matrices
//! are row-major f32 slices; outputs come first, then inputs, then sizes; a wrong size panics.
//!
//! # Layout, in reading order
//! - `tier`, `compute`, `pool`, `scratch`, `shared`: what a kernel runs with
//! - `simd`: vectors of each tier behind one trait; kernels are written once over it
//! - `matrix`, `matmul`: frozen weights, packed, in bf16 or int8, and their products
//! - `gemm`, `lora`: small f32 products, and the adapter's
//! - `norm`, `rope`, `activation`, `softmax`, `attention`, `cross_entropy`, `adamw`: the rest of a transformer
//! - [`naive`]: a slow twin of each
//!
//! # Invariants
//! - An output element's bits depend on its own row of the inputs and the weights alone: not on how many rows share
//!   the call, on the row's index, on the number of threads or on blocking. (They do differ between tiers.) A reduction
//!   therefore adds up in an order that only its own length decides.
//! - This is the only crate with `unsafe`: pointers in tiles, and instructions whose presence a token proves.
//! - Nothing here reads the environment, does input or output, or keeps global state.

mod activation;
mod adamw;
mod attention;
mod compute;
mod cross_entropy;
mod error;
mod gemm;
mod lora;
mod matmul;
mod matrix;
pub mod naive;
mod norm;
mod pool;
mod rope;
mod scratch;
mod shared;
mod simd;
mod softmax;
mod tier;

pub use activation::{add, add_bias, silu_mul, silu_mul_backward};
pub use adamw::{AdamW, adamw};
pub use attention::{AttentionRow, PagedCache, attention_causal, attention_causal_backward, attention_paged};
pub use compute::{Compute, THREADS_MAX};
pub use cross_entropy::{cross_entropy, cross_entropy_backward};
pub use error::KernelsError;
pub use gemm::{Mat, MatMut, gemm_nn, gemm_nt, gemm_tn, par_gemm_nn, par_gemm_nt, par_gemm_tn};
pub use lora::{LoraMatrices, LoraProduct, lora_add};
pub use matmul::matmul;
pub use matrix::{INT8_GROUP, Matrix, WeightFormat};
pub use norm::{rms_norm, rms_norm_backward};
pub use rope::{RopeTable, rope, rope_backward};
pub use softmax::{argmax, log_sum_exp, softmax};
pub use tier::Tier;
