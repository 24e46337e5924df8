//! A slow, obvious twin of every kernel, accumulating in f64: what the fast ones are tested against.
//!
//! Same argument order as the fast kernel, without the context.

mod attention;
mod dense;
mod loss;
mod pointwise;

pub use attention::{attention_causal, attention_causal_backward, attention_paged};
pub use dense::{gemm_nn, gemm_nt, gemm_tn, lora_add, matmul};
pub use loss::{adamw, cross_entropy, cross_entropy_backward};
pub use pointwise::{
    add, add_bias, argmax, log_sum_exp, rms_norm, rms_norm_backward, rope, rope_backward, silu_mul, silu_mul_backward,
    softmax,
};
