//! The harness of rwork's integration tests.

pub mod binary;
pub mod conformance;
pub mod guests;
