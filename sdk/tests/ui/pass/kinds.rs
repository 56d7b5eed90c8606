//! Every kind of parameter, result and option in one plugin.

use std::collections::BTreeMap;

use rwork::{Context, Ended, Input, TaskError};

#[rwork::task]
pub fn unit() {}

#[rwork::task(bind, max_retries = "none")]
fn bound(ctx: &Context, #[default(1.5)] x: f64, y: Option<u8>) -> std::io::Result<f64> {
    let _ = (ctx, y);
    Ok(x)
}

#[rwork::task(cleanup = tidy)]
fn by_value(ctx: Context, #[args] rest: &[String], #[default(true)] loud: bool, #[kwargs] others: BTreeMap<String, u8>) -> usize {
    let _ = (ctx, loud, others);
    rest.len()
}

#[rwork::task(accepts = ["application/octet-stream"])]
fn undecoded(input: &Input) -> Result<(), TaskError> {
    let _ = input;
    Ok(())
}

fn tidy(_: &Context, _: &Ended) {}

mod inner {
    #[rwork::task(name = "inner.format", priority = 0)]
    pub(crate) fn format(text: &str) -> String {
        // A task of this name does not hide the macro.
        format!("{text}!")
    }
}

use inner::format as renamed;

rwork::plugin!(unit, self::bound, by_value, undecoded, crate::inner::format);

fn main() {
    assert_eq!(renamed("a"), "a!");
    assert_eq!(PLUGIN.tasks().len(), 5);
}
