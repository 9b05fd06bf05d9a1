//! Threads, clocks and sockets.
