//! What is fuzzed. Each target is a function `one` from bytes to nothing, which panics if a promise is broken; libFuzzer
//! calls it with bytes that reach new code, the tests call it with the committed corpus.

pub mod config;
#[cfg(feature = "decode")]
pub mod decode;
pub mod draw;
pub mod driver;
pub mod judge;
pub mod packet;
pub mod parse;
pub mod planted;
pub mod port;
pub mod solo;
pub mod turn;
pub mod wire;
