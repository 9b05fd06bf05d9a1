//! Tables of the packet path.
