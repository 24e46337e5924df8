//! The model crate against golden files of the reference implementation, against itself, and against bad input.

mod adapters;
mod batching;
mod loading;
mod logits;
mod support;
mod tokenizer;
