//! What can go wrong in the store.

use std::error::Error;
use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use atelier_access::Denied;
use atelier_domain::{BucketName, Separation, TenantId};
use atelier_seal::SealError;

use crate::organization::OrganizationConflict;
use crate::sign_in::SignInRefused;
use crate::walls::WallFinding;

/// Why the store did not do something. Cloneable, because one failed commit is the answer to many.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The caller may not, or is not known.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// There is no such thing in the grant's tenant.
    #[error("{what} not found")]
    NotFound {
        /// The kind of thing.
        what: &'static str,
    },
    /// A living tenant has this name.
    #[error("a tenant of this name already exists")]
    NameTaken,
    /// It does not go together with how the tenant's projects and people stand.
    #[error(transparent)]
    Organization(#[from] OrganizationConflict),
    /// Somebody for whom an issuer vouches is not let in.
    #[error(transparent)]
    SignIn(#[from] SignInRefused),
    /// The idempotency key was used for another request.
    #[error("this idempotency key was used with other parameters")]
    IdempotencyMismatch,
    /// A bound on how many there may be.
    #[error("too many {what}: the limit is {limit}")]
    TooMany {
        /// The kind of thing.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// A bound on size.
    #[error("{what} is too large: the limit is {limit} bytes")]
    TooLarge {
        /// The kind of thing.
        what: &'static str,
        /// Bytes that it may have.
        limit: usize,
    },
    /// A run that has not ended needs the source.
    #[error("the source is in use by a run that has not ended")]
    SourceInUse,
    /// There is nothing to roll back to.
    #[error("there is no previous version to roll back to")]
    NoPreviousVersion,
    /// The worker's lease ended, or another worker holds the job: what it made must be thrown away.
    #[error("the job's lease is lost")]
    LeaseLost,
    /// The run ended before.
    #[error("the run has already ended")]
    AlreadyFinished,
    /// Another process has the data folder open.
    #[error("the data folder {} is in use by another server{}: stop that first, or name another with --data", folder.display(), of_process(*pid))]
    FolderLocked {
        /// The folder.
        folder: PathBuf,
        /// The process that holds it, where it said so.
        pid: Option<u32>,
    },
    /// The data was written by a newer version of this program.
    #[error("{place} has schema {found}, this program knows schemas up to {known}: use a newer atelier")]
    NewerSchema {
        /// The database file, or the part of a database.
        place: String,
        /// Its schema.
        found: i64,
        /// The newest schema that this program knows.
        known: i64,
    },
    /// The database's schema is older than this program, and its owner is not known.
    #[error("{place} has not the schema of this program: start once with --database-owner")]
    OlderSchema {
        /// The database or the part of it.
        place: String,
    },
    /// The place of one tenant's rows holds another's.
    #[error("the place of tenant {tenant} holds another tenant's rows, or nobody's: it is not opened")]
    WrongPlace {
        /// Whose place it should be.
        tenant: TenantId,
    },
    /// The database does not keep tenants apart in this way.
    #[error("this database cannot keep a tenant apart by {separation}")]
    UnsupportedSeparation {
        /// The way.
        separation: Separation,
    },
    /// What must be done alone, while other servers work on the same database.
    #[error("other servers work on this database: stop them first")]
    OthersAtWork,
    /// Only the database's owner can do it, and the server does not know the owner.
    #[error("only the database's owner can do this: start with --database-owner")]
    OwnerNeeded,
    /// What holds tenants apart is not as it was built, so nothing is served.
    #[error("the walls between tenants have drifted, nothing is served: {}", listed(findings))]
    WallsDown {
        /// What was found.
        findings: Vec<WallFinding>,
    },
    /// What must be there once is there already.
    #[error("it is already there: {statement}")]
    AlreadyThere {
        /// The statement; it holds no values.
        statement: &'static str,
    },
    /// A text with the character NUL, which not every database can store.
    #[error("text must not contain the character NUL")]
    NulInText,
    /// Others hold for too long what was needed; nothing was changed.
    #[error("the database is busy")]
    Busy,
    /// The database does not answer.
    #[error("the database cannot be reached")]
    Unreachable {
        /// Why.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// No space is left for the data folder.
    #[error("the disk is full")]
    DiskFull,
    /// Something stored is not what was written.
    #[error("stored data is damaged: {what}")]
    Corrupt {
        /// What is damaged.
        what: String,
    },
    /// The data is sealed, and the key to it is not where it should be.
    #[error(
        "the data is sealed with a root key that is not there: {place}. Put the root key back from your copy of it, or \
         say with --root-key FILE or ATELIER_ROOT_KEY where it is; without it the data cannot be read, and no new one \
         is made over it"
    )]
    RootKeyMissing {
        /// Where it was looked for.
        place: String,
    },
    /// The data is sealed with another root key.
    #[error(
        "the root key in {place} is not the one that the data is sealed with: put that one back from your copy of it, \
         or say with --root-key FILE or ATELIER_ROOT_KEY where it is"
    )]
    RootKeyWrong {
        /// Where it was found.
        place: String,
    },
    /// What should be a root key is none.
    #[error("{place} holds no root key, which is 32 bytes in base64 or hexadecimal")]
    RootKeyMalformed {
        /// Where it was found.
        place: String,
    },
    /// A new root key would be kept nowhere.
    #[error("the root key is in no file that a new one could replace: make one and name its file with --next")]
    NoPlaceForRootKey,
    /// Something sealed was changed, or lies where it does not belong.
    #[error("stored data does not open: {what}; it was changed, or belongs elsewhere")]
    DoesNotOpen {
        /// What it should be.
        what: String,
    },
    /// The store is closing.
    #[error("the store is shutting down")]
    ShuttingDown,
    /// The operating system refused.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: String,
        /// Why it failed.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// The database refused.
    #[error("the database failed at: {statement}")]
    Database {
        /// The statement; it holds no values.
        statement: &'static str,
        /// Why it failed.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The ledger cannot be written at present: what must be counted is not begun, and what was begun is kept and
    /// written when it can be.
    #[error("the usage ledger cannot be written at present")]
    LedgerBehind,
    /// Rows that should be there are not, or cannot be read. Whose they are is not served until they are back.
    #[error("{place} {what}. Put it back from a backup")]
    Damaged {
        /// The file, or the part of a database.
        place: String,
        /// What is wrong with it.
        what: String,
    },
    /// What should be the address of a database is none. It may hold a password, so it is not repeated.
    #[error("the database's address cannot be read: it must look like postgres://USER@HOST:PORT/DATABASE")]
    BadAddress,
    /// The blob store does not answer, or does not do what is asked.
    #[error("the blob store cannot be reached")]
    BlobsUnreachable {
        /// What it said, or why it said nothing.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// What says where blobs are cannot be meant.
    #[error("blobs cannot be kept so: {what}")]
    BlobsMisnamed {
        /// What is wrong.
        what: String,
    },
    /// Blobs were kept elsewhere before.
    #[error(
        "the blobs of this installation are not in {place}: start with the --blobs that it was started with before, or \
         copy all that is there, below its prefix, to the new place first"
    )]
    BlobsElsewhere {
        /// Where they should be.
        place: String,
    },
    /// Another installation keeps its blobs there.
    #[error("another installation keeps its blobs in {place}: give each a prefix or a bucket of its own")]
    BlobsOfOthers {
        /// The place.
        place: String,
    },
    /// Tenants cannot have buckets of their own in a folder.
    #[error("a tenant has a bucket of its own only where the server is started with --blobs s3://…")]
    BucketsUnsupported,
    /// Somebody has the bucket.
    #[error("the bucket is another tenant's, or the one that tenants share")]
    BucketTaken,
    /// The bucket is not there, or not ours to use.
    #[error("the bucket {bucket} cannot be used")]
    BucketUnusable {
        /// Its name.
        bucket: BucketName,
        /// What the store said.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The folder of blobs refused.
    #[error("the object store failed")]
    Blob {
        /// Why it failed.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
}

impl From<SealError> for StoreError {
    fn from(error: SealError) -> Self {
        Self::io("seal what a tenant gave or made", std::io::Error::other(error.to_string()))
    }
}

impl StoreError {
    pub(crate) fn io(action: impl Into<String>, source: std::io::Error) -> Self {
        if source.kind() == std::io::ErrorKind::StorageFull {
            return Self::DiskFull;
        }
        Self::Io { action: action.into(), source: Arc::new(source) }
    }

    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into() }
    }

    pub(crate) fn blob(source: object_store::Error) -> Self {
        if is_storage_full(&source) { Self::DiskFull } else { Self::Blob { source: Arc::new(BlobFault::of(&source)) } }
    }

    pub(crate) fn damaged(place: impl fmt::Display, what: impl Into<String>) -> Self {
        Self::Damaged { place: place.to_string(), what: what.into() }
    }
}

/// Why the object store refused, without the names of what is stored: those are a tenant's.
#[derive(Debug, thiserror::Error)]
#[error("{what}{}", cause.map(|cause| format!(" ({cause})")).unwrap_or_default())]
struct BlobFault {
    what: &'static str,
    cause: Option<ErrorKind>,
}

impl BlobFault {
    fn of(error: &object_store::Error) -> Self {
        use object_store::Error as E;
        let what = match error {
            E::NotFound { .. } => "a blob is missing",
            E::AlreadyExists { .. } => "a blob is there already",
            E::Precondition { .. } | E::NotModified { .. } => "a blob is not as it was expected",
            E::PermissionDenied { .. } => "it denies the permission",
            E::Unauthenticated { .. } => "it does not know who asks",
            E::NotSupported { .. } | E::NotImplemented { .. } => "it cannot do that",
            E::InvalidPath { .. } | E::UnknownConfigurationKey { .. } => "it is set up wrongly",
            _ => "it failed inside",
        };
        let cause = causes(error).find_map(|cause| Some(cause.downcast_ref::<std::io::Error>()?.kind()));
        Self { what, cause }
    }
}

/// An error and its causes, outermost first.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// Findings that one line of an error names; a role that owns everything gives hundreds.
const FINDINGS_SAID_MAX: usize = 5;

fn listed(findings: &[WallFinding]) -> String {
    let first = findings.iter().take(FINDINGS_SAID_MAX).map(ToString::to_string).collect::<Vec<_>>().join("; ");
    match findings.len().saturating_sub(FINDINGS_SAID_MAX) {
        0 => first,
        more => format!("{first}; and {more} more, which `atelier doctor` lists"),
    }
}

fn of_process(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

/// Whether "no space left on device" is anywhere among the causes.
fn is_storage_full(error: &(dyn Error + 'static)) -> bool {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == ErrorKind::StorageFull)
}
