//! Parameters that a message cannot fill.

#[rwork::task]
fn pattern((x, y): (i64, i64)) {}

#[rwork::task]
fn order(#[default(1)] x: i64, y: i64) {}

#[rwork::task]
fn after_kwargs(#[kwargs] all: std::collections::BTreeMap<String, i64>, x: i64) {}

#[rwork::task]
fn two_args(#[args] a: Vec<i64>, #[args] b: Vec<i64>) {}

#[rwork::task]
fn both(#[args] #[kwargs] a: Vec<i64>) {}

#[rwork::task]
fn default_of_all(#[args] #[default(vec![])] a: Vec<i64>) {}

#[rwork::task]
fn exclusive(x: &mut i64) {}

fn main() {}
