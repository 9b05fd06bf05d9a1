//! A control: a fault that only a search guided by coverage finds in seconds. Nothing of the product is in it.

/// Panics on one input of eight bytes among 2^64; each byte that is right reaches a line of its own.
pub fn one(bytes: &[u8]) {
    let mut depth = 0;
    for (byte, wanted) in bytes.iter().zip(b"steerage") {
        if byte != wanted {
            return;
        }
        // A branch of its own for each depth, as in a parser that reads field after field.
        depth = match depth {
            0 => std::hint::black_box(1),
            1 => std::hint::black_box(2),
            2 => std::hint::black_box(3),
            3 => std::hint::black_box(4),
            4 => std::hint::black_box(5),
            5 => std::hint::black_box(6),
            6 => std::hint::black_box(7),
            _ => panic!("the planted fault was reached"),
        };
    }
}
