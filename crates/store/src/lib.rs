//! Rows and blobs: what Atelier remembers.
//! A control database knows the tenants, each tenant has a place of its own for rows, and blobs lie in the data folder or in buckets;
//! every function that touches a tenant's data takes a [`atelier_access::Granted`] proof and looks only at the proof's
//! tenant. Rows are in SQLite files or in PostgreSQL, through the same statements.
//!
//! Layout, in reading order: `open` takes the folder and the database, `places` says where a tenant's rows are;
//! [`tenants`], [`organization`] and [`keys`] (remembered by `key_cache`) say who there is; [`models`] says what
//! may serve a request, [`usage`] what it used (written by `ledger`); [`sources`], [`runs`], [`jobs`] and [`versions`]
//! are the learning line; [`sign_on`] says whom a tenant trusts to say who its people are, and [`sign_in`] lets them
//! in; [`blobs`] stands beside, and [`audit`] is written by all. What a tenant gave or made is
//! encrypted: `root_key` wraps the `data_keys`, the crate `atelier_seal` says how they are used, `sealing` brings older
//! data under them and `rotation` changes them. `sql` alone names the database drivers, `migrate` holds the schema, and
//! `walls` sees that it still stands; `private_files` are those that nobody else may read.
//!
//! Invariants: a row is found only through its tenant; blobs and the columns that hold a tenant's content are sealed
//! with its key, and open in their own place only; a job's result is published in the transaction that finishes the
//! job, by the holder of its lease only; nothing is committed without an event of the audit trail or a reason why
//! there is none; the ledger is append-only and a reservation is on disk before it is returned;
//! a blob is checked against its name whenever it is read; no SQL is built from input.

pub mod audit;
pub mod blobs;
mod data_keys;
mod erasing;
mod error;
mod exporting;
mod inspect;
pub mod jobs;
mod key_cache;
pub mod keys;
mod ledger;
mod migrate;
pub mod models;
mod moving;
mod open;
pub mod organization;
mod places;
mod private_files;
mod root_key;
mod rotation;
pub mod runs;
mod sealing;
pub mod sign_in;
pub mod sign_on;
pub mod sources;
mod sql;
pub mod tenants;
pub mod usage;
pub mod versions;
mod walls;

pub use audit::events::EventType;
pub use audit::trail::{AuditActor, AuditPage, AuditQuery, AuditRecord};
pub use audit::verify::{Break, ChainKind, ChainReport, Fault};
pub use blobs::{AdapterBlob, BlobOptions, S3_SETTINGS, S3Address, S3Options};
pub use erasing::Erasure;
pub use error::StoreError;
pub use exporting::LedgerRow;
pub use inspect::{inspect, inspect_root_key};
pub use jobs::{ClaimedJob, Heartbeat, Lease, RunEnd, RunFailure};
pub use keys::{CreatedKey, KeyChange, KeyQuery, KeySummary, NewKey};
pub use models::{ModelRecord, Serving};
pub use open::{DatabaseOptions, DatabaseUrls, OpenOptions, Store};
pub use organization::held_keys::{HeldKey, Holder, KeyOrder, Keyring};
pub use organization::invites::{CreatedInvite, InviteRecord, Joined, NewInvite};
pub use organization::machines::{NewMachineKey, NewServiceAccount, ServiceAccountRecord};
pub use organization::members::{MemberRecord, Person};
pub use organization::projects::ProjectRecord;
pub use organization::users::UserRecord;
pub use organization::{OrganizationConflict, Page, PageQuery};
pub use root_key::{ROOT_KEY_FILE, RootKey, RootKeyOptions};
pub use rotation::{KeyRotation, rotate_keys};
pub use runs::{NewRun, Progress, RunError, RunEvent, RunPage, RunRecord, RunState};
pub use sign_in::{CodeMade, LoginKey, SessionMade, SignInRefused, Vouched};
pub use sign_on::{NewSignOn, SignOnClient, SignOnRecord};
pub use sources::{NewSource, SourceOrigin, SourceRecord};
pub use tenants::{NewTenant, TenantRecord};
pub use usage::{
    BucketWidth, Correction, NewReservation, Outcome, Reservation, UsageBucket, UsagePage, UsageQuery, UsageResult,
};
pub use versions::{Aliases, NewVersion, VersionRecord};
pub use walls::WallFinding;

/// A set of names that are stored as text.
macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// The name as it is stored and shown.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = atelier_domain::ParseError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    _ => Err(atelier_domain::ParseError { what: stringify!($name), reason: concat!($("`", $text, "` ",)*) }),
                }
            }
        }
    };
}
pub(crate) use text_enum;
