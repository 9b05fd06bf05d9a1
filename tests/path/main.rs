//! Whole nodes on memory ports, in virtual time: what each mechanism of the path promises, and for each its control.

mod bad_input;
mod forward;
mod local;
mod packets;
mod steering;
mod world;
