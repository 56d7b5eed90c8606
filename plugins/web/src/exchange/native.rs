//! On a native target there is no worker to send requests through.

use rwork::{Context, TaskError};

use crate::Answer;
use crate::address::Address;

/// Refuses.
pub(crate) fn get(_: &Context, address: &Address, _: usize) -> Result<Answer, TaskError> {
    let text = format!("{} {}: requests are sent in a worker only", address.scheme(), address.target());
    Err(TaskError::new("NotImplementedError", text))
}
