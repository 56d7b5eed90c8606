//! Connections: made on demand, given up when they break or fall silent, never trusted to live.
//!
//! [`Link`] is shared by many tasks and makes its connection again when it is asked; [`Wire`] is one connection and ends
//! with it. Neither repeats a command, save for a script that the server did not know: whoever asks decides.

mod connect;
mod script;
mod sentinel;
mod shared;
mod target;
mod wire;

pub(crate) use script::{Call, Script};
pub(crate) use shared::Link;
pub(crate) use target::{Pushes, Target};
pub(crate) use wire::Wire;
