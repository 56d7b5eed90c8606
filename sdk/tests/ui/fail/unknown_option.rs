#[rwork::task(max_retires = 3)]
fn task() {}

fn main() {}
