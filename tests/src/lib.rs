//! The harness of rwork's integration tests.

pub mod binary;
pub mod conformance;
pub mod guests;
pub mod history;
pub mod journal;
pub mod process;
pub mod rig;
