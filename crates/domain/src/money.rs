//! Token counts and what they cost, in integers only.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, Neg};

use serde::{Deserialize, Serialize};

/// Tokens that a price is quoted for.
const PRICED_TOKENS: i128 = 1_000_000;

/// An amount of money in millionths of the installation's currency unit; negative for a correction in favour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MicroUnits(i64);

impl MicroUnits {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// An amount from its count of millionths.
    #[must_use]
    pub fn new(micro_units: i64) -> Self {
        Self(micro_units)
    }

    /// The count of millionths.
    #[must_use]
    pub fn get(self) -> i64 {
        self.0
    }
}

impl Add for MicroUnits {
    type Output = Self;

    /// Saturates: an amount at the end of the range stays visible as such, it never wraps to a debt.
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Neg for MicroUnits {
    type Output = Self;

    fn neg(self) -> Self {
        Self(self.0.saturating_neg())
    }
}

impl Sum for MicroUnits {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for MicroUnits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}{}.{:06}", self.0.unsigned_abs() / 1_000_000, self.0.unsigned_abs() % 1_000_000)
    }
}

/// The tokens of one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TokenCounts {
    /// Tokens of the prompt, the cached ones included, as OpenAI's usage counts them.
    pub input: u64,
    /// Tokens of the prompt that the prefix cache answered.
    pub input_cached: u64,
    /// Tokens generated.
    pub output: u64,
}

impl Add for TokenCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            input_cached: self.input_cached.saturating_add(other.input_cached),
            output: self.output.saturating_add(other.output),
        }
    }
}

impl Sum for TokenCounts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), Add::add)
    }
}

/// A price list: micro-units for a million tokens of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TokenPrice {
    /// For a million fresh tokens of prompts.
    pub input: i64,
    /// For a million tokens of prompts that the prefix cache answered.
    pub input_cached: i64,
    /// For a million tokens generated.
    pub output: i64,
}

impl TokenPrice {
    /// What these tokens cost, rounded up once to the next whole micro-unit.
    #[must_use]
    pub fn cost(&self, tokens: TokenCounts) -> MicroUnits {
        let cached = tokens.input_cached.min(tokens.input);
        let fresh = tokens.input - cached;
        let millionths = i128::from(fresh) * i128::from(self.input)
            + i128::from(cached) * i128::from(self.input_cached)
            + i128::from(tokens.output) * i128::from(self.output);
        let rounded_up = (millionths + PRICED_TOKENS - 1).div_euclid(PRICED_TOKENS);
        MicroUnits(i64::try_from(rounded_up).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(input: u64, input_cached: u64, output: u64, expected: i64) {
        let price = TokenPrice { input: 100_000, input_cached: 10_000, output: 400_000 };
        assert_eq!(price.cost(TokenCounts { input, input_cached, output }).get(), expected);
    }

    #[test]
    fn costs_round_up_once() {
        check(0, 0, 0, 0);
        check(1, 0, 0, 1);
        check(10, 0, 0, 1);
        check(11, 0, 0, 2);
        check(1_000_000, 0, 0, 100_000);
        check(1_000_000, 1_000_000, 0, 10_000);
        check(0, 0, 1_000_000, 400_000);
        check(5, 9, 0, 1);
        check(u64::MAX, 0, u64::MAX, i64::MAX);
    }

    #[test]
    fn amounts_print_with_six_decimals() {
        for (amount, text) in
            [(0, "0.000000"), (1, "0.000001"), (-1_500_000, "-1.500000"), (i64::MIN, "-9223372036854.775808")]
        {
            assert_eq!(MicroUnits::new(amount).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn more_tokens_never_cost_less(input in 0u64..1 << 40, output in 0u64..1 << 40, more in 0u64..1 << 20) {
            let price = TokenPrice { input: 100_000, input_cached: 10_000, output: 400_000 };
            let less = price.cost(TokenCounts { input, input_cached: 0, output });
            let many = price.cost(TokenCounts { input: input + more, input_cached: 0, output: output + more });
            prop_assert!(many >= less);
        }
    }
}
