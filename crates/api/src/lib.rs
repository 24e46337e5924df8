//! The HTTP face of Atelier: OpenAI-compatible completions, and our own resources around them.
//!
//! Reading order: `router` lists every endpoint once; `caller` turns a key, or a
//! browser's session, into who, and `site` says what browsers keep; one file per resource turns
//! JSON into a checked request, asks `platform`, and shapes the answer; `stream` writes server-sent events;
//! `matrix` says which roles each endpoint lets in.
//!
//! Invariants: only this crate knows HTTP and JSON shapes; every refusal is OpenAI's error envelope; a stranger gets
//! 404, never 403; nothing of a request's or an answer's content is logged; no metric's label names a tenant.

mod router;

mod audit;
mod caller;
mod completions;
mod endpoint;
mod error;
mod export;
mod extract;
#[cfg(debug_assertions)]
mod faults;
mod health;
mod keys;
mod matrix;
mod metrics;
mod models;
mod observe;
mod openapi;
mod organization;
pub mod page;
mod refusal;
mod runs;
mod sign_in;
mod sign_on;
mod site;
mod sources;
mod state;
mod stream;
mod tenants;
mod usage;
mod versions;
mod wire;

pub use endpoint::{Access, Endpoint};
pub use metrics::Metrics;
pub use openapi::document as openapi_document;
pub use refusal::Refusal;
pub use router::{endpoints, router};
