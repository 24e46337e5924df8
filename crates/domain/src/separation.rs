//! How far a tenant's rows are kept from everybody else's.

use std::fmt;
use std::str::FromStr;

use crate::{ParseError, serde_by_text};

/// Where a tenant's rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Separation {
    /// In a SQLite file of its own: the only way there, and only there.
    File,
    /// In tables that tenants share, held apart row by row.
    Pooled,
    /// In tables of its own, in a schema of its own.
    Schema,
    /// In a database of its own.
    Database,
}

impl Separation {
    /// Every way, nearest first.
    pub const ALL: [Self; 4] = [Self::File, Self::Pooled, Self::Schema, Self::Database];

    /// Its name on every interface.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Pooled => "pooled",
            Self::Schema => "schema",
            Self::Database => "database",
        }
    }
}

impl fmt::Display for Separation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Separation {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::ALL
            .into_iter()
            .find(|separation| separation.as_str() == text)
            .ok_or(ParseError { what: "separation", reason: "file, pooled, schema or database" })
    }
}

serde_by_text!(Separation);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        for separation in Separation::ALL {
            assert_eq!(separation.as_str().parse(), Ok(separation));
        }
        assert!("files".parse::<Separation>().is_err());
    }
}
