//! JSON as Celery writes and reads it: values found by their bytes, built from bytes, and parsed only when somebody asks.
//!
//! Python's dialect on both ways: `NaN`, `Infinity` and `-Infinity` are numbers, integers may be of any size (up to 4300
//! digits, as in Python), `1e400` is infinite, non-ASCII text is written as `\uXXXX`. Of a key that occurs twice the last
//! one counts. Nesting ends at [`DEPTH_MAX`]; a lone surrogate (`"\ud800"`, which Python can write) is refused here, and
//! replaced by U+FFFD where messages and records are decoded.
//!
//! Never here: `serde_json`, which refuses `NaN` and writes it as `null`.

mod build;
mod repair;
mod scan;
mod typed;
mod value;
mod write;

pub use build::{append, array_of, merge, object_of, prepend};
pub use repair::without_lone_surrogates;
pub use scan::{DEPTH_MAX, Error, Kind, check, elements, entries, is_empty, is_null, text};
pub(crate) use scan::{Scanner, keep_last};
pub(crate) use typed::{WRAPPER_BYTES, check as check_typed, write_bytes, write_typed};
pub use value::Value;
pub use write::{string, write_string};
pub(crate) use write::{write_float, write_seconds};

#[cfg(test)]
pub(crate) mod tests;
