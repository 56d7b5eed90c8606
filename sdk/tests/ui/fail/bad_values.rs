//! Options with values that they cannot have.

#[rwork::task(time_limit = "soon")]
fn duration() {}

#[rwork::task(memory = "64 apples")]
fn size() {}

#[rwork::task(rate_limit = "10/week")]
fn rate() {}

#[rwork::task(priority = 256)]
fn priority() {}

#[rwork::task(acks_late = "yes")]
fn boolean() {}

#[rwork::task(autoretry_for = ValueError)]
fn names() {}

#[rwork::task(time_limit = "10s", soft_time_limit = "20s")]
fn limits() {}

#[rwork::task(queue = "a", queue = "b")]
fn twice() {}

fn main() {}
