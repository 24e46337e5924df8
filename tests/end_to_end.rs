//! The real binary behind a real socket, as users and attackers meet it. Every test starts servers of its own on free
//! ports, with data folders of its own; nothing is mocked and only public routes are used.
//!
//! One binary for all files, so that they link once.

mod support;

mod attacks;
mod audit;
mod bad_input;
mod buckets;
mod commands;
mod crash;
mod damage;
mod edge;
mod encryption;
mod erasing;
mod export;
mod exposure;
mod full_disk;
mod line;
mod metrics;
mod openai_client;
mod people;
mod secrecy;
mod sign_on;
mod tls;
mod userinfo;
