//! Choices, taken from a fuzzer's bytes or from a seed.

use steerage::base::rng::Rng;

/// Where choices come from.
pub enum Draw<'a> {
    /// A fuzzer's bytes; past their end every choice is zero.
    Bytes(&'a [u8]),
    /// A seeded generator, without end.
    Seed(Rng),
}

impl Draw<'_> {
    /// Whether there is anything left to choose from.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Bytes([]))
    }

    /// A byte.
    pub fn byte(&mut self) -> u8 {
        match self {
            Self::Bytes(bytes) => match bytes.split_first() {
                Some((first, rest)) => {
                    *bytes = rest;
                    *first
                }
                None => 0,
            },
            Self::Seed(rng) => rng.next_u64() as u8,
        }
    }

    /// Two bytes.
    pub fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// A number below `bound`, which is from 1 to 256.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        // Zero, which is what bytes give past their end, is the ordinary case.
        self.below(n) == n - 1
    }

    /// One of some.
    pub fn one_of<T: Copy>(&mut self, some: &[T]) -> T {
        some[self.below(some.len())]
    }

    /// So many bytes, fewer at the end of a fuzzer's.
    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => {
                let (taken, rest) = bytes.split_at(n.min(bytes.len()));
                *bytes = rest;
                taken.to_vec()
            }
            Self::Seed(_) => (0..n).map(|_| self.byte()).collect(),
        }
    }
}
