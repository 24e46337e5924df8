//! The use cases over the real base model, the real store and a folder of their own. One binary, so that it links once.

#[path = "../../../store/tests/store/postgres.rs"]
mod postgres;
mod support;

mod completions;
mod keys;
mod learning;
mod restarts;
mod sources;
mod tenants;
