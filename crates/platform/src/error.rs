//! What can go wrong in a use case, and what kind of trouble it is for the one who asked.

use atelier_access::{Action, Denied, policy};
use atelier_domain::{Role, Scope};
use atelier_engine::{EngineError, SubmitError};
use atelier_model::ModelError;
use atelier_store::{OrganizationConflict, StoreError};
use atelier_trainer::TrainError;

use crate::pipeline::ingest::SourceRefused;

/// How long a client should wait when the server is full or closing.
const RETRY_AFTER_MS: u64 = 1_000;

/// What is said while blobs cannot be reached; also what the engine passes on as text.
const STORAGE_AWAY: &str = "The server cannot reach its storage of code and adapters. Try again in a moment.";

/// Anything that a use case can answer instead of its result. The text says what to do next and nothing of the inside;
/// causes are in `source`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlatformError {
    /// The request itself is wrong.
    #[error("{message}")]
    Invalid {
        /// What is wrong and what to send instead.
        message: String,
        /// The field at fault.
        param: Option<&'static str>,
        /// A stable word for programs.
        code: Option<&'static str>,
    },
    /// No key, or none that is valid.
    #[error("Incorrect API key provided. Check the key, or ask the operator for a new one.")]
    NotAuthenticated,
    /// The key that something went on under is no longer good for it.
    #[error(
        "The key that this was begun with was revoked, has expired or may no longer do this. What was generated until \
         now is counted. Go on with another key."
    )]
    KeyEnded,
    /// The key was not given this part of its role's rights.
    #[error(
        "This key may not do this: it has not the scope `{scope}`. Use a key that has it, or have it added to this one."
    )]
    OutOfScope {
        /// What is missing.
        scope: Scope,
    },
    /// The key's role is not one that may do this.
    #[error("This key has the role `{role}`, and this needs `{}`.", words(&policy::roles_for(*action)))]
    BeyondRole {
        /// What the key is.
        role: Role,
        /// What was asked for.
        action: Action,
    },
    /// The tenant is suspended.
    #[error("This organization is suspended. Nothing of it is lost; ask whoever runs this server to resume it.")]
    Suspended,
    /// Somebody was not signed in.
    #[error("{message}")]
    SignIn {
        /// Why, and what to do next.
        message: String,
        /// A stable word for programs.
        code: &'static str,
    },
    /// Not there, or not the caller's to see.
    #[error("{message}")]
    NotFound {
        /// What was looked for.
        message: String,
        /// A stable word for programs.
        code: &'static str,
    },
    /// Does not go together with how things stand.
    #[error("{message}")]
    Conflict {
        /// What stands in the way.
        message: String,
        /// A stable word for programs.
        code: &'static str,
    },
    /// The caller asks for more than it may have at once.
    #[error("{message}")]
    TooManyRequests {
        /// The bound.
        message: String,
        /// When to come back.
        retry_after_ms: u64,
    },
    /// The server has no room now, or is closing.
    #[error("{message}")]
    Overloaded {
        /// Why.
        message: &'static str,
        /// When to come back.
        retry_after_ms: u64,
    },
    /// The store of blobs is away; everything that was there is there when it comes back.
    #[error("{STORAGE_AWAY}")]
    StorageAway,
    /// A server does not start, since what it needs is not there.
    #[error("{message}")]
    NotStarted {
        /// What to look at.
        message: &'static str,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// A source that was not accepted.
    #[error(transparent)]
    Source(#[from] SourceRefused),
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
    /// The base model could not be loaded; the text names the file and what is wrong with it.
    #[error(transparent)]
    Base(ModelError),
    /// An adapter could not be read.
    #[error("an adapter could not be read")]
    Adapter(#[source] ModelError),
    /// Generation failed after it began.
    #[error("the engine failed")]
    Engine(#[source] EngineError),
    /// Training or evaluation failed.
    #[error(transparent)]
    Train(TrainError),
    /// A SIMD tier that this processor does not have.
    #[error("This processor has no {tier} instructions. Leave the tier out to use the best there is.")]
    NoSuchTier {
        /// The tier asked for.
        tier: String,
    },
    /// A stored document is not what this program writes.
    #[error("a stored {what} could not be read")]
    Stored {
        /// What it is.
        what: &'static str,
        /// Where and why.
        #[source]
        source: Unreadable,
    },
    /// A task of ours ended without a result.
    #[error("a task of the server failed")]
    Task(#[source] TaskEnd),
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Random(#[source] getrandom::Error),
}

/// Why a stored document could not be read: the kind and the place of the fault. The text of the parser's own error
/// would quote what it found, which is a tenant's.
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub enum Unreadable {
    /// It is not the JSON that it should be.
    #[error("{category:?} error at line {line}, column {column}")]
    Json {
        /// Syntax, data or end.
        category: serde_json::error::Category,
        /// From 1 upwards.
        line: usize,
        /// From 1 upwards.
        column: usize,
    },
    /// It cannot be unpacked.
    #[error("{0}")]
    Io(std::io::ErrorKind),
}

impl From<serde_json::Error> for Unreadable {
    fn from(error: serde_json::Error) -> Self {
        Self::Json { category: error.classify(), line: error.line(), column: error.column() }
    }
}

impl From<std::io::Error> for Unreadable {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error.kind())
    }
}

/// How a task ended that gave no result. What a panic said may quote a request, so it is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TaskEnd {
    /// In a panic.
    #[error("it panicked")]
    Panicked,
    /// Its runtime ended first.
    #[error("it was cut short")]
    Cancelled,
}

/// What kind of trouble an error is, for whoever speaks to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request must change before it can succeed.
    InvalidRequest {
        /// The field at fault.
        param: Option<&'static str>,
        /// A stable word for programs.
        code: Option<&'static str>,
    },
    /// A valid key is needed.
    NotAuthenticated,
    /// The key is valid, and this is not for it.
    Forbidden {
        /// A stable word for programs.
        code: &'static str,
    },
    /// Not there, or not the caller's to see.
    NotFound {
        /// A stable word for programs.
        code: &'static str,
    },
    /// Does not go together with how things stand.
    Conflict {
        /// A stable word for programs.
        code: &'static str,
    },
    /// The caller is over its limit.
    TooManyRequests {
        /// When to come back.
        retry_after_ms: u64,
    },
    /// The server is over its limit.
    Overloaded {
        /// When to come back.
        retry_after_ms: u64,
    },
    /// Our fault; the text is for the log.
    Internal,
}

impl PlatformError {
    /// What kind of trouble this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid { param, code, .. } => ErrorKind::InvalidRequest { param: *param, code: *code },
            Self::Source(SourceRefused::Pack(_)) => ErrorKind::Internal,
            Self::Source(_) => ErrorKind::InvalidRequest { param: None, code: Some("invalid_source") },
            Self::NotAuthenticated | Self::KeyEnded => ErrorKind::NotAuthenticated,
            Self::Suspended => ErrorKind::Forbidden { code: "organization_suspended" },
            Self::SignIn { code, .. } => ErrorKind::Forbidden { code },
            Self::OutOfScope { .. } => ErrorKind::Forbidden { code: "insufficient_scope" },
            Self::BeyondRole { .. } => ErrorKind::Forbidden { code: "insufficient_role" },
            Self::NotFound { code, .. } => ErrorKind::NotFound { code },
            Self::Conflict { code, .. } => ErrorKind::Conflict { code },
            Self::TooManyRequests { retry_after_ms, .. } => {
                ErrorKind::TooManyRequests { retry_after_ms: *retry_after_ms }
            }
            Self::Overloaded { retry_after_ms, .. } => ErrorKind::Overloaded { retry_after_ms: *retry_after_ms },
            Self::StorageAway => ErrorKind::Overloaded { retry_after_ms: RETRY_AFTER_MS },
            Self::Store(_)
            | Self::NotStarted { .. }
            | Self::Base(_)
            | Self::Adapter(_)
            | Self::Engine(_)
            | Self::Train(_)
            | Self::NoSuchTier { .. }
            | Self::Stored { .. }
            | Self::Task(_)
            | Self::Random(_) => ErrorKind::Internal,
        }
    }

    pub(crate) fn invalid(
        message: impl Into<String>,
        param: impl Into<Option<&'static str>>,
        code: impl Into<Option<&'static str>>,
    ) -> Self {
        Self::Invalid { message: message.into(), param: param.into(), code: code.into() }
    }

    /// The same for whoever starts a server or looks at its data: that is the operator, to whom places are named.
    pub(crate) fn at_start(error: StoreError) -> Self {
        match error {
            StoreError::Damaged { .. } | StoreError::NotFound { .. } => Self::Store(error),
            StoreError::Unreachable { .. } => Self::NotStarted {
                message: "The database cannot be reached. Does it run, and is --database / ATELIER_DATABASE right?",
                source: error,
            },
            StoreError::BlobsUnreachable { .. } => Self::NotStarted {
                message: "The bucket cannot be written, read and listed. Make it, let the credentials use it, and look \
                          at --blobs, --blobs-endpoint and --blobs-region.",
                source: error,
            },
            error => error.into(),
        }
    }

    /// What became of a task that gave no result.
    #[must_use]
    pub fn task(end: tokio::task::JoinError) -> Self {
        Self::Task(if end.is_panic() { TaskEnd::Panicked } else { TaskEnd::Cancelled })
    }

    /// What may be said of it to a client that reads it later, as with a run: nothing of the inside.
    pub(crate) fn public_message(&self) -> String {
        match self {
            Self::Train(error) => error.to_string(),
            _ if self.kind() != ErrorKind::Internal => self.to_string(),
            _ => {
                "The server had an error while it worked on this. Try again; if it persists, tell the operator the id \
                  of the run."
                    .to_owned()
            }
        }
    }

    pub(crate) fn model_not_found(model: &str) -> Self {
        // The words of OpenAI's API, which clients show as they are.
        let message = format!("The model `{model}` does not exist or you do not have access to it.");
        Self::NotFound { message, code: "model_not_found" }
    }

    pub(crate) fn not_found() -> Self {
        Self::NotFound { message: "No such resource, or not one of yours.".to_owned(), code: "not_found" }
    }

    pub(crate) fn closing() -> Self {
        Self::Overloaded { message: "The server is closing. Try again in a moment.", retry_after_ms: RETRY_AFTER_MS }
    }
}

fn words(roles: &[Role]) -> String {
    roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join("` or `")
}

impl From<Denied> for PlatformError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::NotAuthenticated => Self::NotAuthenticated,
            Denied::Hidden => Self::not_found(),
            Denied::OutOfScope(scope) => Self::OutOfScope { scope },
            Denied::BeyondRole { role, action } => Self::BeyondRole { role, action },
            Denied::Suspended => Self::Suspended,
            Denied::Exceeds => Self::invalid(
                "A key cannot be given a role or scopes that the key which makes it has not, nor such that go beyond what \
                 its holder is. Ask for less, or use another key.",
                "scopes",
                "rights_exceeded",
            ),
        }
    }
}

impl From<StoreError> for PlatformError {
    fn from(error: StoreError) -> Self {
        let error = match unavailable(error) {
            Ok(unavailable) => return unavailable,
            Err(error) => error,
        };
        match error {
            StoreError::Denied(denied) => denied.into(),
            StoreError::NotFound { .. } => Self::not_found(),
            StoreError::SignIn(refused) => crate::sign_in::refused(refused),
            StoreError::Organization(conflict) => organization_conflict(conflict),
            StoreError::NameTaken => Self::Conflict {
                message: "A tenant of that name exists already. Choose another name.".to_owned(),
                code: "name_taken",
            },
            StoreError::IdempotencyMismatch => Self::Conflict {
                message: "The idempotency key was used with another request. Use a new one.".to_owned(),
                code: "idempotency_mismatch",
            },
            StoreError::SourceInUse => Self::Conflict {
                message: "A run still learns from that source. Wait for it or cancel it.".to_owned(),
                code: "source_in_use",
            },
            StoreError::NoPreviousVersion => Self::Conflict {
                message: "There is no previous version to go back to. List versions and name one.".to_owned(),
                code: "no_previous_version",
            },
            StoreError::AlreadyFinished => {
                Self::Conflict { message: "The run has ended already.".to_owned(), code: "run_ended" }
            }
            StoreError::TooMany { what, limit } => Self::Conflict {
                message: format!("There are {limit} {what} already, which is the most. Remove one first."),
                code: "too_many",
            },
            StoreError::TooLarge { what, limit } => {
                Self::invalid(format!("The {what} is larger than the {limit} that are allowed."), None, "too_large")
            }
            StoreError::BlobsUnreachable { .. }
            | StoreError::BucketUnusable { .. }
            | StoreError::BucketTaken
            | StoreError::BucketsUnsupported
            | StoreError::UnsupportedSeparation { .. } => of_a_place(error),
            StoreError::NulInText => {
                Self::invalid("Text must not contain the character NUL. Leave it out.", None, "invalid_value")
            }
            StoreError::OthersAtWork => Self::Conflict {
                message: "Other servers work on this database. A tenant moves only when there is one: stop the others."
                    .to_owned(),
                code: "others_at_work",
            },
            StoreError::OwnerNeeded => Self::Conflict {
                message: "Only a server that knows its database's owner can do this. Start it with --database-owner."
                    .to_owned(),
                code: "owner_needed",
            },
            other => Self::Store(other),
        }
    }
}

/// What the store cannot do now and may later, whatever was asked; gives back what is of another kind.
fn unavailable(error: StoreError) -> Result<PlatformError, StoreError> {
    Ok(match error {
        StoreError::DiskFull => PlatformError::Overloaded {
            message: "The server's disk is full. Its operator must make room; nothing was changed.",
            retry_after_ms: RETRY_AFTER_MS,
        },
        StoreError::LedgerBehind => PlatformError::Overloaded {
            message: "The server cannot write down what is used, so it completes nothing until it can. Its operator \
                      must look at its disk and database; try again in a moment.",
            retry_after_ms: RETRY_AFTER_MS,
        },
        StoreError::Damaged { .. } => {
            tracing::error!(error = &error as &dyn std::error::Error, "rows that are needed cannot be read");
            PlatformError::Overloaded {
                message: "This organization's data cannot be read at present. Whoever runs this server must put it \
                          back from a backup.",
                retry_after_ms: RETRY_AFTER_MS,
            }
        }
        StoreError::ShuttingDown => PlatformError::closing(),
        StoreError::Busy => PlatformError::Overloaded {
            message: "The database is busy; nothing was changed. Try again in a moment.",
            retry_after_ms: RETRY_AFTER_MS,
        },
        StoreError::Unreachable { source } => {
            tracing::error!(error = &*source as &dyn std::error::Error, "the database cannot be reached");
            PlatformError::Overloaded {
                message: "The server cannot reach its database. Try again in a moment.",
                retry_after_ms: RETRY_AFTER_MS,
            }
        }
        error => return Err(error),
    })
}

fn organization_conflict(conflict: OrganizationConflict) -> PlatformError {
    let (message, code) = match conflict {
        OrganizationConflict::ProjectArchived => {
            ("That project is archived: it can be read and not changed. Use another project.", "project_archived")
        }
        OrganizationConflict::DefaultProject => (
            "The default project cannot be archived: what names no project belongs to it. Archive another one.",
            "default_project",
        ),
        OrganizationConflict::LastOwner => {
            ("That is the last owner of the organization. Make somebody else an owner first.", "last_owner")
        }
        OrganizationConflict::UserExists => (
            "Somebody with that email address belongs to the organization already. Change that person instead.",
            "user_exists",
        ),
        OrganizationConflict::InviteExists => {
            ("An invite for that email address waits already. Delete it first to invite anew.", "invite_exists")
        }
        OrganizationConflict::InviteAccepted => {
            ("That invite was accepted already. Delete the person instead.", "invite_accepted")
        }
        OrganizationConflict::AlreadyMember => {
            ("That person belongs to the project already. Change the role there instead.", "user_in_project")
        }
    };
    PlatformError::Conflict { message: message.to_owned(), code }
}

/// What is wrong with where rows and blobs are, or are to be.
fn of_a_place(error: StoreError) -> PlatformError {
    match error {
        StoreError::BlobsUnreachable { source } => {
            tracing::error!(error = &*source as &dyn std::error::Error, "the blob store cannot be reached");
            PlatformError::StorageAway
        }
        StoreError::BucketUnusable { bucket, source } => {
            tracing::error!(%bucket, error = &*source as &dyn std::error::Error, "a bucket cannot be used");
            PlatformError::Conflict {
                message: format!(
                    "The bucket `{bucket}` cannot be written, read and listed. Make it, let the server's \
                     credentials use it, and try again; the server's log says what the store answered."
                ),
                code: "bucket_unusable",
            }
        }
        StoreError::BucketTaken => PlatformError::Conflict {
            message: "That bucket is another tenant's, or the one that tenants share. Name another.".to_owned(),
            code: "bucket_taken",
        },
        StoreError::BucketsUnsupported => PlatformError::invalid(
            "This server keeps blobs in its data folder, where no tenant has a bucket. Start it with --blobs.",
            "bucket",
            "unsupported_bucket",
        ),
        StoreError::UnsupportedSeparation { separation } => PlatformError::invalid(
            format!(
                "This server's database cannot keep a tenant apart by `{separation}`: only PostgreSQL can, which `atelier \
                 serve --database` is given."
            ),
            "separation",
            "unsupported_separation",
        ),
        other => PlatformError::Store(other),
    }
}

impl From<SubmitError> for PlatformError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::QueueFull { .. } => Self::Overloaded {
                message: "The server has more requests waiting than it can take. Try again in a moment.",
                retry_after_ms: RETRY_AFTER_MS,
            },
            SubmitError::ShuttingDown => Self::closing(),
            SubmitError::PromptTooLong { .. } | SubmitError::NeverFits { .. } => Self::invalid(
                format!("Shorten the prompt or 'max_tokens': {error}."),
                "prompt",
                "context_length_exceeded",
            ),
            SubmitError::EmptyPrompt | SubmitError::InvalidToken { .. } => {
                Self::invalid(format!("Invalid prompt: {error}."), "prompt", "invalid_value")
            }
            SubmitError::InvalidParameter(fault) => Self::invalid(format!("{fault}."), None, "invalid_value"),
        }
    }
}

impl From<EngineError> for PlatformError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Stopped => Self::closing(),
            EngineError::AdapterLoad { ref message, .. } if message == STORAGE_AWAY => Self::StorageAway,
            other => Self::Engine(other),
        }
    }
}

impl From<TrainError> for PlatformError {
    fn from(error: TrainError) -> Self {
        Self::Train(error)
    }
}
