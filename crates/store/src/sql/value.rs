//! What goes into a statement.

use atelier_domain::{
    AuditEventId, BucketName, Digest, Email, InviteId, JobId, KeyId, Label, PersonRole, Plan, ProjectId, ProjectRole,
    RequestId, Role, RunId, Scopes, Separation, ServiceAccountId, SourceId, Suffix, TenantId, TenantName, Timestamp,
    UserId, VersionNumber,
};
use serde_json::Value as Json;

use crate::error::StoreError;

/// A value of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Int(i64),
    Text(String),
    Blob(Vec<u8>),
}

impl Value {
    /// PostgreSQL's text has no NUL; what cannot be stored on both is stored on neither.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match self {
            Self::Text(text) if text.contains('\0') => Err(StoreError::NulInText),
            _ => Ok(()),
        }
    }
}

impl From<i64> for Value {
    fn from(int: i64) -> Self {
        Self::Int(int)
    }
}

impl From<u32> for Value {
    fn from(int: u32) -> Self {
        Self::Int(i64::from(int))
    }
}

impl From<u64> for Value {
    /// Counts beyond the signed range do not occur; one would be stored as the largest.
    fn from(int: u64) -> Self {
        Self::Int(i64::try_from(int).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Value {
    fn from(int: usize) -> Self {
        Self::Int(i64::try_from(int).unwrap_or(i64::MAX))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Blob(bytes.to_vec())
    }
}

impl From<Timestamp> for Value {
    fn from(time: Timestamp) -> Self {
        Self::Int(time.micros())
    }
}

impl From<VersionNumber> for Value {
    fn from(number: VersionNumber) -> Self {
        Self::Int(i64::from(number.get()))
    }
}

impl From<&Json> for Value {
    fn from(json: &Json) -> Self {
        Self::Text(json.to_string())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

macro_rules! value_by_text {
    ($($name:ty),* $(,)?) => {
        $(impl From<$name> for Value {
            fn from(value: $name) -> Self {
                Self::Text(value.to_string())
            }
        })*
    };
}

value_by_text!(
    TenantId,
    KeyId,
    SourceId,
    RunId,
    JobId,
    RequestId,
    ProjectId,
    UserId,
    ServiceAccountId,
    InviteId,
    AuditEventId,
    Digest,
    Plan,
    Role,
    PersonRole,
    ProjectRole,
    Scopes,
    Separation,
    &BucketName,
    &TenantName,
    &Suffix,
    &Label,
    &Email
);

/// The values of a statement's parameters, in order.
macro_rules! values {
    ($($value:expr),* $(,)?) => { vec![$(crate::sql::Value::from($value)),*] };
}
pub(crate) use values;
