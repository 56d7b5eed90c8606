//! What was released stays: a plugin compiled against `rwork:task` 0.1.0 runs as it did, and every word of that package is
//! still in `wit/`, unchanged.

mod guest;
mod package;

use std::path::{Path, PathBuf};

/// What was kept of 0.1.0: the package, and a plugin that was built against it.
fn released() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/wit-0.1.0")
}
