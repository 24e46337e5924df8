//! Which instruction set the kernels may use, chosen at run time.

use std::fmt;
use std::str::FromStr;

use crate::KernelsError;

/// An instruction-set level, ordered from the slowest to the fastest.
///
/// A tier for AMX would stand above [`Tier::Avx512Bf16`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Plain Rust; the compiler's baseline vectors. Runs everywhere.
    Portable,
    /// AVX2 with FMA, 256-bit vectors.
    Avx2,
    /// AVX-512 F, BW and VL, 512-bit vectors.
    Avx512,
    /// AVX-512 with BF16 dot products and VNNI.
    Avx512Bf16,
}

impl Tier {
    /// Every tier, slowest first.
    pub const ALL: [Tier; 4] = [Tier::Portable, Tier::Avx2, Tier::Avx512, Tier::Avx512Bf16];

    /// The fastest tier that this processor can run.
    pub fn detect() -> Tier {
        Tier::ALL.into_iter().rev().find(|tier| tier.available()).unwrap_or(Tier::Portable)
    }

    /// Every tier that this processor can run, slowest first; never empty.
    pub fn all_available() -> Vec<Tier> {
        Tier::ALL.into_iter().filter(|tier| tier.available()).collect()
    }

    /// Whether this processor can run the tier.
    #[cfg(target_arch = "x86_64")]
    pub fn available(self) -> bool {
        let avx2 = || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let avx512 = || {
            avx2()
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
        };
        match self {
            Tier::Portable => true,
            Tier::Avx2 => avx2(),
            Tier::Avx512 => avx512(),
            Tier::Avx512Bf16 => {
                avx512() && is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512vnni")
            }
        }
    }

    /// Whether this processor can run the tier.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn available(self) -> bool {
        self == Tier::Portable
    }

    /// The name that [`FromStr`] reads and [`fmt::Display`] writes.
    pub fn name(self) -> &'static str {
        match self {
            Tier::Portable => "portable",
            Tier::Avx2 => "avx2",
            Tier::Avx512 => "avx512",
            Tier::Avx512Bf16 => "avx512-bf16",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Tier {
    type Err = KernelsError;

    fn from_str(text: &str) -> Result<Tier, KernelsError> {
        Tier::ALL
            .into_iter()
            .find(|tier| tier.name() == text)
            .ok_or_else(|| KernelsError::UnknownTier { name: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_strangers_are_refused() {
        for tier in Tier::ALL {
            assert_eq!(tier.to_string().parse::<Tier>().unwrap(), tier);
        }
        let error = "amx".parse::<Tier>().unwrap_err();
        assert!(error.to_string().contains("amx"), "{error}");
    }

    #[test]
    fn detection_names_the_last_available_tier() {
        assert_eq!(Tier::all_available().first(), Some(&Tier::Portable));
        assert_eq!(Tier::all_available().last(), Some(&Tier::detect()));
    }
}
