//! JSON as Celery's clients write and read it: with `NaN`, `Infinity` and `-Infinity`, with integers of any size, and
//! with kombu's typed values (`{"__type__": "datetime", "__value__": …}`).
//!
//! serde_json refuses the first and writes `null` for it, hence this reader and writer. They work on slices, borrow what
//! they can, need no random numbers and recurse no deeper than [`DEPTH_MAX`].

mod keys;
mod read;
mod scan;
#[cfg(test)]
mod tests;
mod write;

use std::fmt;

pub(crate) use read::from_str;
pub(crate) use scan::{elements, members};
pub(crate) use write::{to_string, to_vec, write_string};

/// How deep arrays and objects may nest: what serde_json allows, and well within a guest's stack of 128 KiB.
pub(crate) const DEPTH_MAX: u32 = 128;

/// Text that is not JSON, or not of the type that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JsonError(String);

impl JsonError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    fn at(text: &str, offset: usize) -> Self {
        Self(format!("{text} at byte {offset}"))
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for JsonError {}

impl serde::de::Error for JsonError {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self(text.to_string())
    }
}

impl serde::ser::Error for JsonError {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self(text.to_string())
    }
}
