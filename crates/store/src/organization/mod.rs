//! Who there is inside a tenant: projects, people, those who are invited, and machines.
//!
//! A key of a project sees that project and nothing of the others, nor what is the whole tenant's. What takes a right
//! away makes the keys that rested on it worthless in the same transaction, everywhere within a second.
//!
//! Layout, in reading order: [`projects`]; [`users`], and [`invites`] by which they come; [`members`] says which people
//! belong to a project; [`machines`] are the service accounts; [`held_keys`] lists keys with who holds them, and
//! `belonging` says which keys somebody may hold.

pub(crate) mod belonging;
pub mod held_keys;
pub mod invites;
pub mod machines;
pub mod members;
pub mod projects;
pub mod users;

use atelier_access::right::TenantRight;
use atelier_access::{Denied, Granted};
use atelier_domain::ProjectId;
use atelier_domain::limits::PAGE_ROWS_MAX;

use crate::error::StoreError;
use crate::sql::Row;

/// Why something does not go together with how a tenant's projects and people stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OrganizationConflict {
    /// What is archived stays as it is.
    #[error("the project is archived")]
    ProjectArchived,
    /// What names no project needs one.
    #[error("the default project cannot be archived")]
    DefaultProject,
    /// Somebody must be there who can invite others.
    #[error("the last owner of an organization stays its owner")]
    LastOwner,
    /// An address names one person.
    #[error("a person with this address belongs to the organization")]
    UserExists,
    /// An address has one invite that waits.
    #[error("an invite for this address waits already")]
    InviteExists,
    /// An invite is accepted once.
    #[error("the invite was accepted already")]
    InviteAccepted,
    /// A person belongs to a project once.
    #[error("the person belongs to the project already")]
    AlreadyMember,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// What is in it, in the list's order.
    pub items: Vec<T>,
    /// Whether the list goes on after it.
    pub has_more: bool,
}

/// Which part of a list. An id begins with the millisecond of its making, so that lists in their order are in that of
/// age, oldest first.
#[derive(Debug, Clone, Copy)]
pub struct PageQuery<I> {
    /// What comes after this one.
    pub after: Option<I>,
    /// At most this many, and never more than [`PAGE_ROWS_MAX`].
    pub limit: usize,
}

impl<I: ToString> PageQuery<I> {
    /// What comes after this, in SQL: every id comes after an empty text.
    fn after_text(&self) -> String {
        self.after.as_ref().map(I::to_string).unwrap_or_default()
    }

    fn size(&self) -> usize {
        self.limit.clamp(1, PAGE_ROWS_MAX)
    }

    /// Rows to ask for: one more than the page holds says whether there are more.
    fn rows(&self) -> usize {
        self.size() + 1
    }

    fn page<T>(&self, mut rows: Vec<Row>, read: impl Fn(&Row) -> Result<T, StoreError>) -> Result<Page<T>, StoreError> {
        let has_more = rows.len() > self.size();
        rows.truncate(self.size());
        Ok(Page { items: rows.iter().map(read).collect::<Result<_, _>>()?, has_more })
    }
}

/// Refuses whoever has the key of one project: what is the whole tenant's is not his to see.
fn of_the_whole<R: TenantRight>(grant: &Granted<R>) -> Result<(), StoreError> {
    if grant.project().is_none() { Ok(()) } else { Err(Denied::Hidden.into()) }
}

/// Refuses whoever has the key of another project.
fn sees<R: TenantRight>(grant: &Granted<R>, project: ProjectId) -> Result<(), StoreError> {
    if grant.project().is_none_or(|own| own == project) { Ok(()) } else { Err(projects::NOT_FOUND) }
}
