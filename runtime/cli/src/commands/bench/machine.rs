//! Where and with what a run was made: figures without this mean nothing.

use std::fs;
use std::thread::available_parallelism;

use crate::commands::VERSION;

/// Names and values, for the head of the table.
pub(crate) fn describe() -> Vec<(String, String)> {
    let cores = available_parallelism().map_or(0, std::num::NonZeroUsize::get);
    let system = rustix::system::uname();
    let kernel = format!("{} {}", system.sysname().to_string_lossy(), system.release().to_string_lossy());
    let pair = |name: &str, value: String| (name.to_owned(), value);
    vec![
        pair("rwork", VERSION.to_owned()),
        pair(
            "build",
            if cfg!(debug_assertions) { "debug: figures mean little" } else { "release" }.to_owned(),
        ),
        pair(
            "processor",
            field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        ),
        pair("cores", cores.to_string()),
        pair("memory", field("/proc/meminfo", "MemTotal").unwrap_or_default()),
        pair("system", kernel),
        pair("load before", fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned()),
    ]
}

/// The first `name : value` of a file under `/proc`.
pub(crate) fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}
