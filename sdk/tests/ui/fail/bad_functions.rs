//! Functions that cannot be tasks.

#[rwork::task]
async fn waits() {}

#[rwork::task]
fn generic<T>(x: T) {}

#[rwork::task(bind)]
fn unbound(x: i64) {}

#[rwork::task(bind = false)]
fn bound(ctx: &rwork::Context) {}

#[rwork::task(accepts = ["application/x-msgpack"])]
fn typed(x: i64) {}

struct Service;

impl Service {
    #[rwork::task]
    fn method(&self) {}
}

fn main() {}
