//! Write rwork tasks in Rust.
