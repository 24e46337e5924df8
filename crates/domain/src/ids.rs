//! Ids: a UUID of version 7 behind a prefix that says what it names.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use uuid::Uuid;

use crate::{ParseError, Timestamp, serde_by_text};

/// Random bytes that an id takes; the other six hold its millisecond.
pub const ID_RANDOM_BYTES: usize = 10;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// The text that every id of this kind begins with.
            pub const PREFIX: &'static str = $prefix;

            /// A new id from the present time and fresh random bytes; sorts by creation time to the millisecond.
            #[must_use]
            pub fn generate(now: Timestamp, random: [u8; ID_RANDOM_BYTES]) -> Self {
                let millis = u64::try_from(now.micros() / 1_000).unwrap_or(0);
                Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
            }

            /// The sixteen bytes: for keys of caches and for hashing.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// The 32 hexadecimal digits without the prefix: for file names.
            #[must_use]
            pub fn hex(&self) -> String {
                self.0.simple().to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", Self::PREFIX, self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                text.strip_prefix(Self::PREFIX)
                    .and_then(parse_simple_uuid)
                    .map(Self)
                    .ok_or(ParseError { what: $what, reason: concat!($prefix, " and 32 lowercase hexadecimal digits") })
            }
        }

        serde_by_text!($name);
    };
}

id!(
    /// A tenant: the customer; on the OpenAI-compatible admin API an organization.
    TenantId, "org_", "tenant id"
);
id!(
    /// An API key (its row, not its secret).
    KeyId, "key_", "key id"
);
id!(
    /// A source: code that a tenant gave to learn from.
    SourceId, "src_", "source id"
);
id!(
    /// A run: one pass of the learning pipeline.
    RunId, "run_", "run id"
);
id!(
    /// A job: one durable queue row.
    JobId, "job_", "job id"
);
id!(
    /// A project: a part of a tenant that keys and usage are told apart by.
    ProjectId, "proj_", "project id"
);
id!(
    /// A person of a tenant.
    UserId, "user-", "user id"
);
id!(
    /// An account of a machine in a project.
    ServiceAccountId, "svc_acct_", "service account id"
);
id!(
    /// An invitation of a person who is not there yet.
    InviteId, "invite-", "invite id"
);
id!(
    /// An event of the audit trail.
    AuditEventId, "audit_log-", "audit event id"
);
id!(
    /// One metered request, as clients see it in `id` of a completion.
    RequestId, "cmpl-", "request id"
);

impl ProjectId {
    /// The project that a tenant has from its beginning, and to which belongs what names no other. It has the tenant's
    /// own digits, so that nobody need look it up.
    #[must_use]
    pub fn default_of(tenant: TenantId) -> Self {
        Self(tenant.0)
    }
}

/// Exactly one spelling per id: 32 lowercase digits, so that two texts never name one row.
fn parse_simple_uuid(text: &str) -> Option<Uuid> {
    let plain = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if plain { Uuid::try_parse(text).ok() } else { None }
}

/// The number of a version inside one tenant, from 1 upwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionNumber(NonZeroU32);

impl VersionNumber {
    /// The number of a tenant's first version.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// The number as an integer.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// The number after this one; `None` once the range is used up.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl TryFrom<i64> for VersionNumber {
    type Error = ParseError;

    fn try_from(number: i64) -> Result<Self, ParseError> {
        u32::try_from(number)
            .ok()
            .and_then(NonZeroU32::new)
            .map(Self)
            .ok_or(ParseError { what: "version number", reason: "a whole number from 1 to 4294967295" })
    }
}

impl fmt::Display for VersionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for VersionNumber {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let error =
            ParseError { what: "version number", reason: "a whole number from 1 without leading zeros or signs" };
        let canonical = !text.starts_with(['0', '+']);
        if canonical { text.parse().map(Self).map_err(|_| error) } else { Err(error) }
    }
}

impl serde::Serialize for VersionNumber {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.get())
    }
}

impl<'de> serde::Deserialize<'de> for VersionNumber {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        NonZeroU32::deserialize(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, valid: bool) {
        assert_eq!(text.parse::<TenantId>().is_ok(), valid, "{text:?}");
    }

    #[test]
    fn an_id_has_one_spelling() {
        check("org_0190d1f2a3b47c5d8e9f001122334455", true);
        check("org_0190D1F2A3B47C5D8E9F001122334455", false);
        check("org_0190d1f2-a3b4-7c5d-8e9f-001122334455", false);
        check("0190d1f2a3b47c5d8e9f001122334455", false);
        check("src_0190d1f2a3b47c5d8e9f001122334455", false);
        check("org_", false);
        check("", false);
        check("org_../../etc/passwd0000000000000000", false);
    }

    #[test]
    fn a_default_project_is_known_by_its_tenant() {
        let tenant: TenantId = "org_0190d1f2a3b47c5d8e9f001122334455".parse().unwrap();
        assert_eq!(ProjectId::default_of(tenant).to_string(), "proj_0190d1f2a3b47c5d8e9f001122334455");
    }

    #[test]
    fn a_version_number_has_one_spelling() {
        for (text, valid) in [
            ("1", true),
            ("42", true),
            ("4294967295", true),
            ("0", false),
            ("01", false),
            ("+1", false),
            ("-1", false),
            ("4294967296", false),
            ("", false),
            ("1 ", false),
        ] {
            assert_eq!(text.parse::<VersionNumber>().is_ok(), valid, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn ids_round_trip_and_sort_by_time(a in 0i64..4_000_000_000_000, later in 1i64..1_000_000, random in any::<[u8; 10]>()) {
            let first = RunId::generate(Timestamp::from_micros(a * 1_000), random);
            let second = RunId::generate(Timestamp::from_micros((a + later) * 1_000), random);
            prop_assert_eq!(first.to_string().parse::<RunId>(), Ok(first));
            prop_assert!(first < second);
            prop_assert!(first.to_string() < second.to_string());
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            let _ = text.parse::<TenantId>();
            let _ = text.parse::<VersionNumber>();
        }
    }
}
