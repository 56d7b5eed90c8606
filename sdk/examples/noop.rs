//! The smallest plugin: one task that does nothing. What it costs is what every task costs.

#[rwork::task(name = "bench.noop")]
fn noop() {}

rwork::plugin!(noop);
