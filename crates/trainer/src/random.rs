//! Deterministic random numbers keyed by what they are for.
//!
//! Every choice of the trainer is a pure function of (seed, purpose, index), so a resumed run needs no
//! generator state: it asks for the same key again and gets the same numbers.

/// Weyl increment of SplitMix64 (Steele, Lea, Flood 2014): 2^64 divided by the golden ratio, made odd.
const SPLITMIX_INCREMENT: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a random stream is for: two purposes never share numbers under one seed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    FileOrder = 1,
    SampleOrder,
    WindowOffset,
    WindowCut,
    Split,
    CompletionItems,
    AdapterInit,
    Dropout,
    Bootstrap,
}

/// SplitMix64: one 64-bit state, full period, good enough for choosing windows and resampling.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    /// The stream for `purpose` at `index` (an epoch, a step, a file number …) under `seed`.
    pub(crate) fn keyed(seed: u64, purpose: Purpose, index: u64) -> Random {
        let first = mix(seed ^ mix(purpose as u64));
        Random { state: mix(first ^ index.wrapping_mul(SPLITMIX_INCREMENT)) }
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(SPLITMIX_INCREMENT);
        mix(self.state)
    }

    /// Uniform in `0..bound`; `bound` must be above zero. The bias of the multiply-shift is below 2^-32 for
    /// the bounds that occur here.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        debug_assert!(bound > 0);
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// Uniform in `[0, 1)` with 53 bits.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Fisher–Yates.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for index in (1..items.len()).rev() {
            items.swap(index, self.below(index + 1));
        }
    }
}

/// The finaliser of SplitMix64: a bijection on 64 bits whose output bits all depend on all input bits.
pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_reproducible_and_distinct() {
        let first = |seed, purpose, index| Random::keyed(seed, purpose, index).next_u64();
        assert_eq!(first(1, Purpose::Split, 0), first(1, Purpose::Split, 0));
        assert_ne!(first(1, Purpose::Split, 0), first(1, Purpose::Split, 1));
        assert_ne!(first(1, Purpose::Split, 0), first(2, Purpose::Split, 0));
        assert_ne!(first(1, Purpose::Split, 0), first(1, Purpose::Dropout, 0));
    }

    #[test]
    fn numbers_stay_in_bounds_and_spread() {
        let mut random = Random::keyed(7, Purpose::Bootstrap, 0);
        let mut counts = [0usize; 5];
        for _ in 0..5_000 {
            counts[random.below(5)] += 1;
            assert!((0.0..1.0).contains(&random.unit()));
        }
        assert!(counts.iter().all(|&count| (800..1_200).contains(&count)), "{counts:?}");
    }

    #[test]
    fn shuffle_is_a_permutation() {
        let mut items: Vec<usize> = (0..100).collect();
        Random::keyed(3, Purpose::SampleOrder, 0).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
