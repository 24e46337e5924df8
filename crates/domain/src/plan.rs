//! What a tenant bought.

use std::fmt;
use std::str::FromStr;

use crate::{ParseError, TokenPrice, serde_by_text};

/// A tenant's plan: which model answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Plan {
    /// The base alone.
    Shared,
    /// The base with the tenant's adapter.
    Tuned,
    /// A model process of the tenant's own.
    Dedicated,
}

impl Plan {
    /// Every plan, cheapest first.
    pub const ALL: [Self; 3] = [Self::Shared, Self::Tuned, Self::Dedicated];

    /// The plan's name on every interface.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Tuned => "tuned",
            Self::Dedicated => "dedicated",
        }
    }

    /// Whether the plan's requests run with what the tenant's own code taught.
    #[must_use]
    pub fn has_own_model(self) -> bool {
        !matches!(self, Self::Shared)
    }

    /// What a token costs under the plan. The figures are the product's list price; a request keeps the price that
    /// held when it was accepted.
    #[must_use]
    pub fn token_price(self) -> TokenPrice {
        match self {
            Self::Shared => TokenPrice { input: 100_000, input_cached: 10_000, output: 400_000 },
            Self::Tuned => TokenPrice { input: 150_000, input_cached: 15_000, output: 600_000 },
            Self::Dedicated => TokenPrice { input: 300_000, input_cached: 30_000, output: 1_200_000 },
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Plan {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::ALL
            .into_iter()
            .find(|plan| plan.as_str() == text)
            .ok_or(ParseError { what: "plan", reason: "shared, tuned or dedicated" })
    }
}

serde_by_text!(Plan);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        for plan in Plan::ALL {
            assert_eq!(plan.as_str().parse(), Ok(plan));
        }
        assert!("Shared".parse::<Plan>().is_err());
    }

    #[test]
    fn a_cached_token_never_costs_more_than_a_fresh_one() {
        for plan in Plan::ALL {
            let price = plan.token_price();
            assert!(price.input_cached <= price.input && price.input <= price.output, "{plan}");
        }
    }
}
