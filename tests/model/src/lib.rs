//! A model of what a store promises: the contract of broker and result backend as a state machine in memory.
//!
//! [`Store`] is the server's side: messages, consumers, records. A [`Call`] is a value, so that whoever tests can keep it,
//! repeat it, deliver it late or lose its answer. [`Driver`] is what a driver remembers in its process: the tokens of its
//! line, the receipts that it handed out. [`Observer`] is the rule by which other consumers find one dead.
//!
//! No fault is made here, nothing waits, and time is an argument. The simulation of the worker adds the faults; the
//! histories in `tests/it` run the same calls against real stores and compare every answer.

mod browse;
mod call;
mod commit;
mod driver;
mod event;
mod member;
mod messages;
mod observer;
mod records;
mod store;

pub use call::{
    Call, Close, CommitBatch, Look, Open, Post, Reap, Renew, Renewed, Resume, StoreRecords, Take,
};
pub use driver::Driver;
pub use event::{Event, How};
pub use member::{ConsumerId, Held, Line, Token};
pub use messages::Serial;
pub use observer::Observer;
pub use store::{Rules, Store};
