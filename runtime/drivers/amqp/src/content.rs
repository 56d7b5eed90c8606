//! Messages as AMQP carries them: basic properties with a header table, and back.
//!
//! A message's headers are one JSON object; a header table has other kinds of numbers and texts. What a table can't carry
//! exactly (names of more than 255 bytes, numbers beyond 64 bits, something that is no object at all) travels as text in a
//! header of our own beside the table, so that the message comes back whole. It knows nothing of rwork's marks.

mod read;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use read::read;
pub(crate) use write::write;

/// The message's own headers as text, where a table can't hold them.
const HEADERS_AS_TEXT: &str = "x-rwork-headers";
