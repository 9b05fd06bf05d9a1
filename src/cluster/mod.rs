//! What the nodes decide together: values without clocks, threads or sockets.

pub mod namespace;
