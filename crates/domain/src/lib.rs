//! The words of Atelier as types: ids, names, plans, token counts, money, time and limits.
//! Every other crate but `kernels` and `model` speaks in these, so that no id, digest or amount travels as a bare
//! string or number.
//!
//! Layout, in reading order: [`ids`] and [`names`] say who and what; [`plan`] says what a tenant bought, [`role`]
//! what a key may be, [`people`] what a person is; [`digest`] names content; [`money`] counts tokens and micro-units; [`time`] is the only clock;
//! [`limits`] holds every bound with its unit and its reason.
//!
//! Invariants: no I/O, nothing async, no dependency on another crate of ours; a value of a type here has passed its
//! parser, there is no unchecked public constructor.

pub mod bucket;
pub mod digest;
pub mod ids;
pub mod limits;
pub mod money;
pub mod names;
pub mod people;
pub mod plan;
pub mod role;
pub mod separation;
pub mod time;

pub use bucket::BucketName;
pub use digest::Digest;
pub use ids::{
    AuditEventId, InviteId, JobId, KeyId, ProjectId, RequestId, RunId, ServiceAccountId, SourceId, TenantId, UserId,
    VersionNumber,
};
pub use money::{MicroUnits, TokenCounts, TokenPrice};
pub use names::{Label, ModelName, Suffix, TenantName};
pub use people::{Email, EmailDomain, PersonRole, ProjectRole};
pub use plan::Plan;
pub use role::{Role, Scope, Scopes};
pub use separation::Separation;
pub use time::{Clock, ManualClock, SystemClock, Timestamp};

/// Why a text is not the value that it was read as. The message repeats nothing of the text: it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {what}: {reason}")]
pub struct ParseError {
    /// The kind of value that was expected, for example `tenant id`.
    pub what: &'static str,
    /// What the grammar asks for.
    pub reason: &'static str,
}

/// Gives a type whose text form is `Display` and `FromStr` the same form in serde.
macro_rules! serde_by_text {
    ($name:ty) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_by_text;
