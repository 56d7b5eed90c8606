//! Temporary: the chaos tests alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]
mod chaos;
mod disk_full;
mod hot_reload;
