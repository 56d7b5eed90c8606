//! Connections: made on demand, given up when they break or fall silent, never trusted to live.
//!
//! [`Link`] is shared by many tasks and makes its connection again when it is asked; [`Wire`] is one connection and ends
//! with it. Neither repeats anything: whoever asks decides. The client library's own recovery is off.

mod connect;
mod greeting;
mod runtime;
mod shared;
mod target;
mod wire;

pub(crate) use shared::Link;
pub(crate) use target::Target;
pub(crate) use wire::Wire;
