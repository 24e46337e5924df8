//! Who calls, and what they may do.
//! A request's key becomes a [`Caller`]; a caller asks for a [`Right`]; the policy, one `match`, answers with a
//! [`Granted`] proof that every function of the store takes in place of a bare id.
//!
//! Layout, in reading order: [`key`] is the text of an API key and what is kept of it; [`caller`] is who it stands
//! for; [`right`] lists everything that can be asked for; [`policy`] decides; [`granted`] is the proof; [`witness`] is told of refusals.
//!
//! Invariants: a `Caller` comes only from a verified key, from `anonymous` or from `system`; a `Granted<R>` comes only
//! from the policy; no I/O, nothing async; a secret is never printed, by `Debug` neither.

pub mod caller;
pub mod granted;
pub mod key;
pub mod policy;
pub mod right;
pub mod witness;

pub use caller::{Caller, verify, verify_invite};
pub use granted::{Granted, KeyRights};
pub use key::{ApiKey, InviteSecret, KeyKind, KeyOwner, KeyPurpose, KeyRecord, Pepper, PublicId};
pub use policy::Standing;
pub use right::{Action, Right};
pub use witness::Witness;

use atelier_domain::{Role, Scope};

/// Why a caller may not do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No key, or one that is wrong, revoked or malformed: say who you are first (401).
    #[error("no valid API key was given")]
    NotAuthenticated,
    /// The caller is known and the thing is not for them: it must look as if it did not exist (404).
    #[error("not found")]
    Hidden,
    /// The key's role is not one that may do this to its own tenant, or to the installation. It hides nothing: who may
    /// do what is no secret, and whether there is such a thing was not looked at (403).
    #[error("the role {role} may not {}", action.as_str())]
    BeyondRole {
        /// What the key is.
        role: Role,
        /// What was asked for; [`policy::roles_for`] says who may.
        action: Action,
    },
    /// The caller manages keys and would hand out a right that its own key has not.
    #[error("a key cannot be given rights that the key which makes it has not")]
    Exceeds,
    /// The caller's role would do, and its key was not given this scope of the role's rights (403). It tells a key's
    /// holder of his own key and of nothing else.
    #[error("the key has not the scope `{0}`")]
    OutOfScope(Scope),
    /// The key is good, and its tenant is suspended: nothing goes until the operator says so (403).
    #[error("the tenant is suspended")]
    Suspended,
}
