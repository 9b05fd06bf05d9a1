//! Whether a history of one key is linearizable: whether each operation can have happened at one moment between question and
//! answer (Herlihy and Wing, 1990). By the search of Wing and Gong (1993) with Lowe's memory of what was tried (2017).

use std::collections::HashSet;

/// What was asked of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// What is it?
    Read,
    /// It shall be this.
    Write(u64),
    /// It shall be this if it has been that.
    Swap(Option<u64>, u64),
    /// It shall be nothing.
    Delete,
    /// It shall be so much more; nothing is zero.
    Add(u64),
}

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It is this, as was read, or as it was instead of what a swap expected.
    Is(Option<u64>),
    /// It was done.
    Done,
    /// Nobody knows: it was done at any time since, or never.
    Unknown,
}

/// An operation of a history.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// When it was asked for.
    pub begin: u64,
    /// When it was answered; of no meaning if nobody knows.
    pub end: u64,
    /// The question.
    pub call: Call,
    /// The answer.
    pub said: Said,
}

impl Operation {
    /// Values that whoever asked this has seen.
    fn sees(&self) -> impl Iterator<Item = u64> {
        let expected = if let Call::Swap(expected, _) = self.call { expected } else { None };
        let told = if let Said::Is(value) = self.said { value } else { None };
        expected.into_iter().chain(told)
    }

    /// By when it has happened.
    fn latest(&self) -> u64 {
        if self.said == Said::Unknown { u64::MAX } else { self.end }
    }

    /// What a register that was `state` is after this, which wasn't only told what it is; none: it can't have happened then.
    fn apply(&self, state: Option<u64>) -> Option<Option<u64>> {
        match (self.call, self.said) {
            (Call::Read, _) => Some(state),
            (Call::Write(value), _) => Some(Some(value)),
            (Call::Swap(..), Said::Is(_)) => None,
            (Call::Swap(expected, value), Said::Done) => (state == expected).then_some(Some(value)),
            (Call::Swap(expected, value), Said::Unknown) => {
                Some(if state == expected { Some(value) } else { state })
            }
            (Call::Delete, _) => Some(None),
            (Call::Add(amount), _) => Some(Some(state.unwrap_or(0) + amount)),
        }
    }
}

/// Searches an order of a key's operations, of which nothing was known before the first: `false` if there is none.
pub fn is_linearizable(history: &[Operation]) -> bool {
    let seen: HashSet<u64> = history.iter().flat_map(Operation::sees).collect();
    // What nobody knows of and nobody has seen needs no place in an order.
    let counts = |operation: &&Operation| match operation.call {
        _ if operation.said != Said::Unknown => true,
        Call::Read => false,
        Call::Write(value) | Call::Swap(_, value) => seen.contains(&value),
        Call::Delete | Call::Add(_) => true,
    };
    let mut left: Vec<Operation> = history.iter().filter(counts).copied().collect();
    left.sort_by_key(|operation| operation.begin);
    let mut search = Search { tried: HashSet::new(), done: vec![0; left.len().div_ceil(64)], all: left };
    search.find(None)
}

struct Search {
    all: Vec<Operation>,
    /// A bit for each operation that has its place.
    done: Vec<u64>,
    tried: HashSet<(Vec<u64>, Option<u64>)>,
}

/// An operation that got its place: its number, the state before it, and whether another would have done as well.
struct Step {
    which: usize,
    before: Option<u64>,
    chosen: bool,
}

impl Search {
    /// Depth first, without recursion: histories are longer than stacks.
    fn find(&mut self, begin: Option<u64>) -> bool {
        let mut state = begin;
        let mut path: Vec<Step> = Vec::new();
        // What was tried last where we are.
        let mut last = None;
        loop {
            if self.all.iter().enumerate().all(|(i, o)| self.is_done(i) || o.said == Said::Unknown) {
                return true;
            }
            if let Some((which, next, chosen)) = self.next(last, state) {
                self.flip(which);
                if !chosen || self.tried.insert((self.done.clone(), next)) {
                    path.push(Step { which, before: state, chosen });
                    (state, last) = (next, None);
                } else {
                    self.flip(which);
                    last = Some(which);
                }
                continue;
            }
            loop {
                let Some(Step { which, before, chosen }) = path.pop() else { return false };
                self.flip(which);
                (state, last) = (before, Some(which));
                if chosen {
                    break;
                }
            }
        }
    }

    /// The next operation that may come now, in the order of their ends, after the one that was tried `last`; what the register is
    /// behind it; and whether there was a choice. Whoever sees what there is and leaves it so may come first of all.
    fn next(&self, last: Option<usize>, state: Option<u64>) -> Option<(usize, Option<u64>, bool)> {
        let open = || self.all.iter().enumerate().filter(|(i, _)| !self.is_done(*i));
        // Nothing that began after another's end comes before that.
        let end = open().map(|(_, operation)| operation.latest()).min()?;
        let may = || open().take_while(|(_, operation)| operation.begin <= end);
        if last.is_none() {
            let sees = |(_, o): &(usize, &Operation)| o.said == Said::Is(state);
            if let Some((i, _)) = may().find(sees) {
                return Some((i, state, false));
            }
        }
        let rank = |i: usize| (self.all[i].latest(), i);
        let left = may().filter(|(i, o)| {
            !matches!(o.said, Said::Is(_))
                && last.is_none_or(|last| rank(*i) > rank(last))
                && !self.is_second(*i)
        });
        let applied = left.filter_map(|(i, operation)| Some((i, operation.apply(state)?, true)));
        applied.min_by_key(|(i, ..)| rank(*i))
    }

    /// Of operations that nobody knows of and that do the same, whichever happened, the first may have been it.
    fn is_second(&self, i: usize) -> bool {
        let operation = &self.all[i];
        let same = |other: &Operation| other.said == Said::Unknown && other.call == operation.call;
        operation.said == Said::Unknown && (0..i).any(|other| !self.is_done(other) && same(&self.all[other]))
    }

    fn is_done(&self, i: usize) -> bool {
        self.done[i / 64] & 1 << (i % 64) != 0
    }

    fn flip(&mut self, i: usize) {
        self.done[i / 64] ^= 1 << (i % 64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation((begin, end): (u64, u64), call: Call, said: Said) -> Operation {
        Operation { begin, end, call, said }
    }

    #[test]
    fn known_histories() {
        use Call::{Add, Delete, Read, Swap, Write};
        use Said::{Done, Is, Unknown};
        let o = operation;
        let good: &[&[Operation]] = &[
            &[],
            &[o((0, 1), Write(1), Done), o((2, 3), Read, Is(Some(1)))],
            // Two at once: either order will do.
            &[o((0, 9), Write(1), Done), o((1, 2), Read, Is(None)), o((3, 4), Read, Is(Some(1)))],
            // What nobody knows of happens late, or never.
            &[o((0, 1), Write(1), Unknown), o((2, 3), Read, Is(None)), o((4, 5), Read, Is(Some(1)))],
            &[o((0, 1), Delete, Unknown), o((2, 3), Write(4), Done), o((4, 5), Read, Is(Some(4)))],
            &[o((0, 5), Swap(None, 1), Done), o((0, 5), Swap(None, 2), Is(Some(1)))],
            &[o((0, 1), Add(2), Done), o((0, 1), Add(3), Unknown), o((2, 3), Read, Is(Some(5)))],
            &[o((0, 1), Write(1), Done), o((2, 3), Swap(Some(7), 2), Unknown), o((4, 5), Read, Is(Some(1)))],
        ];
        for (i, history) in good.iter().enumerate() {
            assert!(is_linearizable(history), "good history {i}");
        }
        let bad: &[&[Operation]] = &[
            &[o((0, 1), Read, Is(Some(1)))],
            &[o((0, 1), Write(1), Done), o((2, 3), Read, Is(None))],
            // Once seen, it stays.
            &[o((0, 9), Write(1), Unknown), o((1, 2), Read, Is(Some(1))), o((3, 4), Read, Is(None))],
            &[o((0, 1), Write(1), Done), o((2, 3), Write(2), Done), o((4, 5), Read, Is(Some(1)))],
            // An old value comes back.
            &[o((0, 1), Write(1), Done), o((2, 3), Delete, Done), o((4, 5), Read, Is(Some(1)))],
            // Both have won.
            &[o((0, 5), Swap(None, 1), Done), o((0, 5), Swap(None, 2), Done)],
            &[o((0, 1), Add(2), Done), o((0, 1), Add(3), Done), o((2, 3), Read, Is(Some(3)))],
            &[o((0, 1), Write(1), Done), o((2, 3), Swap(Some(7), 2), Unknown), o((4, 5), Read, Is(Some(2)))],
        ];
        for (i, history) in bad.iter().enumerate() {
            assert!(!is_linearizable(history), "bad history {i}");
        }
    }
}
