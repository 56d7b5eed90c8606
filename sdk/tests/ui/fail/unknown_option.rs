//! An option that nobody knows.

#[rwork::task(max_retires = 3)]
fn task() {}

fn main() {}
