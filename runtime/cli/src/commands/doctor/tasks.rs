//! The plugins, the cache of their compiled code, and what is needed to build more.

use std::path::PathBuf;
use std::process::Command;

use rwork_plugin::Plugins;
use rwork_sandbox::Sandbox;

use super::check::Check;
use crate::commands::build;
use crate::config::Config;
use crate::wiring;

/// Loads the plugins as a worker would.
pub(crate) async fn checks(config: &Config, sandbox: Sandbox) -> Vec<Check> {
    let wanted = match wiring::plugins_config(config) {
        Ok(wanted) => wanted,
        Err(error) => return vec![Check::failure("plugins", &error)],
    };
    let directory = wanted.directory.clone();
    if !directory.is_dir() {
        let found = format!("there is no directory `{}`", directory.display());
        let hint = "make it, or name another: `plugins_dir` in rwork.toml, `rwork run --plugins DIR`";
        return vec![Check::warning("plugins", found, hint)];
    }
    let (_, report) = match Plugins::open(wanted, sandbox).await {
        Ok(opened) => opened,
        Err(error) => {
            let hint = error.hint().unwrap_or_default();
            return vec![Check::failed("plugins", error.chain(), hint)];
        }
    };
    let tasks: usize = report.loaded.iter().map(|plugin| plugin.tasks.len()).sum();
    let found = format!("{} with {tasks} tasks in `{}`", report.loaded.len(), directory.display());
    let mut checks = vec![Check::ok("plugins", found)];
    checks.extend(report.refused.iter().map(|(path, error)| {
        Check::failed(
            "plugins",
            format!("{}: {}", path.display(), error.chain()),
            error.hint().unwrap_or_default(),
        )
    }));
    checks
}

/// Whether plugins can be built here; a machine that only runs them needs none of it.
pub(crate) fn toolchain() -> Check {
    let what = "toolchain";
    let library =
        Command::new("rustc").args(["--print", "target-libdir", "--target", build::TARGET]).output();
    let Ok(library) = library else {
        return Check::warning(
            what,
            "no Rust compiler: plugins can't be built here",
            "install Rust 1.95 or newer",
        );
    };
    let directory = PathBuf::from(String::from_utf8_lossy(&library.stdout).trim());
    if !build::has_standard_library(&directory) {
        let found = format!("no standard library for `{}`: plugins can't be built here", build::TARGET);
        return Check::warning(what, found, format!("`rustup target add {}`", build::TARGET));
    }
    Check::ok(what, format!("plugins can be built: `{}` is there", build::TARGET))
}
