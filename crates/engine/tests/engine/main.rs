//! The engine on the tiny golden models: single-stepped, except where threads are the subject.

mod batching;
mod lifecycle;
mod prefix;
mod residency;
mod stopping;
mod support;
mod walls;
