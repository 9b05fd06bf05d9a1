//! The `steerage` command.
fn main() {}
