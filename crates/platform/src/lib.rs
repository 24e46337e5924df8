//! The use cases of Atelier: what a caller can ask for, from a completion to the deletion of a tenant, each as one
//! method of [`Platform`]. Wires store, engine and trainer together; knows neither HTTP nor SQL.
//!
//! Layout, in reading order: [`platform`] opens and closes everything; [`completions`] tells a request's story (the
//! steps lie in `models`, `limits`, `metering` and `stream`, and `watch` cuts it when its key ends); [`tenants`],
//! [`organization`] (projects, people, machines), [`sign_on`] (whom a tenant trusts to say who its people are) and [`sign_in`] (how they come in), [`keys`], [`sources`], [`learn`] (runs), [`versions`], [`usage`] and [`audit`] are the other resources; `adapters` lends tenants' adapters to an engine that knows digests only; `worker` claims jobs
//! and `pipeline` carries them out.
//!
//! Invariants:
//! - every method takes a [`Caller`](atelier_access::Caller) and turns it into a grant before it touches the store;
//! - a request that was accepted has a usage row before its first token, and is settled with the tokens that were
//!   really generated, whoever goes away;
//! - an adapter becomes live by one transaction of the store and by nothing else, and only past the gate;
//! - nothing prompt-shaped, completion-shaped or key-shaped is logged.

mod adapters;
pub mod audit;
pub mod completions;
mod error;
pub mod export;
pub mod keys;
pub mod learn;
mod limits;
mod metering;
mod models;
pub mod organization;
pub mod pipeline;
pub mod platform;
pub mod sign_in;
pub mod sign_on;
pub mod sources;
mod stream;
pub mod tenants;
mod training_base;
pub mod usage;
pub mod versions;
mod watch;
mod worker;

pub use atelier_engine::{EngineOptions, FinishReason};
pub use atelier_model::{Adapter, AdapterFiles, Model, Tier, WeightFormat};
pub use atelier_signon::flow::{challenge as pkce_challenge, random_text as random_secret};
pub use atelier_store::{
    Aliases, AuditPage, AuditQuery, AuditRecord, BlobOptions, Break, BucketWidth, ChainReport, CreatedInvite,
    CreatedKey, DatabaseOptions, DatabaseUrls, Erasure, EventType, HeldKey, Holder, InviteRecord, Joined, KeyOrder,
    KeyQuery, KeyRotation, KeySummary, Keyring, MemberRecord, Page, PageQuery, Person, Progress, ProjectRecord,
    ROOT_KEY_FILE, RootKey, RootKeyOptions, RunError, RunEvent, RunRecord, RunState, S3_SETTINGS, S3Address, S3Options,
    ServiceAccountRecord, SourceOrigin, SourceRecord, TenantRecord, UsageBucket, UsagePage, UsageQuery, UsageResult,
    UserRecord, VersionRecord,
};
pub use atelier_trainer::{EvalCard, Interval, ItemLoss, SourceFile, mean_loss, paired_ci95};

pub use completions::{CompletionRequest, Prompt};
pub use error::{ErrorKind, PlatformError, TaskEnd, Unreadable};
pub use export::Export;
pub use keys::{ChangeKey, MakeKey};
pub use learn::{LearnOptions, RunKind, StartRun, run_kind};
pub use limits::Admission;
pub use models::ModelInfo;
pub use organization::{AppointMachine, Invite, MachineKey};
pub use pipeline::evaluate::held_out_losses;
pub use pipeline::{RunResult, pack_folder};
pub use platform::{
    BaseInfo, Opened, Platform, PlatformOptions, PlatformStats, Readiness, inspect_base, inspect_root_key,
    inspect_walls, rotate_keys,
};
pub use sign_in::{Answer, BeginSignIn, BegunSignIn, FinishSignIn, LoginKey, Program, SignedIn};
pub use sign_on::{SetSignOn, SignOnRecord};
pub use stream::{CompletionEvent, CompletionStream, TokenLogprobText, Usage};
pub use tenants::{CreatedTenant, TenantChange};
pub use versions::{ListedVersion, VersionList};
