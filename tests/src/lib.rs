//! The harness of rwork's integration tests.
