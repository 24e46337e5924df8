//! What a key may be: its role, and the part of the role's rights that it was given.

use std::fmt;
use std::str::FromStr;

use crate::{ParseError, serde_by_text};

/// What a key stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Runs the installation; belongs to no tenant.
    Operator,
    /// Manages one tenant.
    Admin,
    /// Uses one tenant's models.
    Member,
    /// A machine of one tenant: completes, and gives code to learn from.
    Service,
    /// Looks at one tenant's runs, versions, usage and audit trail; changes nothing and completes nothing.
    Reader,
}

impl Role {
    /// Every role, mightiest first.
    pub const ALL: [Self; 5] = [Self::Operator, Self::Admin, Self::Member, Self::Service, Self::Reader];

    /// The role's name on every interface.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Service => "service",
            Self::Reader => "reader",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or(ParseError { what: "role", reason: "operator, admin, member, service or reader" })
    }
}

serde_by_text!(Role);

/// A group of actions that a key may be limited to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Run completions and list models.
    Complete,
    /// See runs, versions and the tenant's name and plan.
    Read,
    /// See code; give it, learn from it, move aliases.
    Learn,
    /// See what was used.
    Usage,
    /// See the audit trail.
    Audit,
    /// Manage keys, projects and people.
    Manage,
    /// Give keys, people and machines rights that the key itself has not, up to those of its role.
    Delegate,
    /// Run the installation.
    Operate,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 8] = [
        Self::Complete,
        Self::Read,
        Self::Learn,
        Self::Usage,
        Self::Audit,
        Self::Manage,
        Self::Delegate,
        Self::Operate,
    ];

    /// The scope's name on every interface.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Read => "read",
            Self::Learn => "learn",
            Self::Usage => "usage",
            Self::Audit => "audit",
            Self::Manage => "manage",
            Self::Delegate => "delegate",
            Self::Operate => "operate",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(ParseError {
            what: "scope",
            reason: "complete, read, learn, usage, audit, manage, delegate or operate",
        })
    }
}

serde_by_text!(Scope);

/// The scopes of a key: what of its role's rights it has. As text, their names with a comma between, in the order of
/// [`Scope::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scopes(u8);

impl Scopes {
    /// Everything that the role may.
    pub const ALL: Self = Self(u8::MAX >> (8 - Scope::ALL.len()));
    /// Everything that an admin does but completing: an admin API key's.
    pub const ADMINISTRATION: Self = Self(Self::ALL.0 & !(1 << Scope::Complete as u8) & !(1 << Scope::Operate as u8));

    /// Exactly these.
    #[must_use]
    pub fn of(scopes: &[Scope]) -> Self {
        Self(scopes.iter().fold(0, |bits, scope| bits | scope.bit()))
    }

    /// Whether the scope is among them.
    #[must_use]
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Whether none of them is missing in `others`.
    #[must_use]
    pub fn is_within(self, others: Self) -> bool {
        self.0 & !others.0 == 0
    }

    /// One by one, in the order of [`Scope::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, scope) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            f.write_str(scope.as_str())?;
        }
        Ok(())
    }
}

impl FromStr for Scopes {
    type Err = ParseError;

    /// An empty text is no scopes: a key of none is good for nothing.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let scopes: Result<Vec<Scope>, ParseError> = text.split(',').map(str::parse).collect();
        scopes.map(|scopes| Self::of(&scopes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_parse_back() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse(), Ok(scope));
        }
        assert!("".parse::<Role>().is_err());
        assert!("Admin".parse::<Role>().is_err());
        for text in ["", ",", "read,", "read, learn", "everything", "*"] {
            assert!(text.parse::<Scopes>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn all_scopes_are_all() {
        assert_eq!(Scopes::ALL, Scopes::of(&Scope::ALL));
        assert!(Scope::ALL.into_iter().all(|scope| Scopes::ALL.contains(scope)));
        assert_eq!(Scopes::ADMINISTRATION.to_string(), "read,learn,usage,audit,manage,delegate");
    }

    proptest! {
        #[test]
        fn scopes_are_a_set(some in proptest::sample::subsequence(Scope::ALL.to_vec(), 1..=8), others in proptest::sample::subsequence(Scope::ALL.to_vec(), 1..=8)) {
            let (scopes, other_scopes) = (Scopes::of(&some), Scopes::of(&others));
            prop_assert_eq!(scopes.to_string().parse::<Scopes>(), Ok(scopes));
            prop_assert_eq!(scopes.iter().collect::<Vec<_>>(), some.clone());
            prop_assert_eq!(scopes.is_within(other_scopes), some.iter().all(|scope| others.contains(scope)));
        }
    }
}
