//! The commands that ask a running server, one file each.

pub mod audit;
pub mod complete;
pub mod completions;
pub mod doctor;
pub mod eval;
pub mod key;
pub mod learn;
pub mod login;
pub mod openapi;
pub mod organization;
pub mod root_key;
pub mod runs;
pub mod sign_on;
pub mod tenant;
pub mod usage;
pub mod versions;
