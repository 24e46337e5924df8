//! Scaled dot-product attention, causal, with grouped queries (head h reads key and value head h / (heads / kv_heads)).

mod causal;
mod paged;

pub use causal::{attention_causal, attention_causal_backward};
pub use paged::{AttentionRow, PagedCache, attention_paged};
