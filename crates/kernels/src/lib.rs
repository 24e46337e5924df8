//! Maths on slices: the products, norms, attention and losses of a transformer, forward and backward.
//!
//! SIMD is chosen at run time by a [`Tier`]; every kernel has a slow, obvious twin in [`naive`].

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
pub use lora::lora_add;
pub use matmul::matmul;
pub use matrix::{INT8_GROUP, Matrix, WeightFormat};
pub use norm::{rms_norm, rms_norm_backward};
pub use rope::{RopeTable, rope, rope_backward};
pub use softmax::{argmax, log_sum_exp, softmax};
pub use tier::Tier;
