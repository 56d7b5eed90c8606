//! The released WIT package is kept.
