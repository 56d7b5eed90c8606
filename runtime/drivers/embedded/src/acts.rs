//! What can be done to the file in a write transaction: one module per group of statements.
//!
//! An act must give the same when it is run again after a rollback: it changes the file in [`Act::run`] and what the
//! process knows only in [`Act::committed`].

pub(crate) mod commit;
pub(crate) mod dead;
pub(crate) mod publish;
pub(crate) mod result;
pub(crate) mod session;
pub(crate) mod take;

use std::fmt::Debug;

use rusqlite::{CachedStatement, Connection};
use rwork_broker::Receipt;
use rwork_protocol::Timestamp;
use rwork_protocol::service::{Error, RedactedUrl};
use tokio::sync::oneshot;

use crate::bell::Rings;
use crate::consumer_state::Consumers;
use crate::error::Failure;
use crate::files::FileId;

/// One transaction, as an act sees it.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) db: &'a Connection,
    pub(crate) now: Timestamp,
    pub(crate) consumers: &'a Consumers,
    /// The file that is written.
    pub(crate) file: FileId,
    /// To be rung after the commit.
    pub(crate) rings: Rings,
    /// The last receipt that was made.
    pub(crate) receipt: &'a mut u64,
}

impl<'a> Turn<'a> {
    pub(crate) fn prepare(&self, sql: &str) -> rusqlite::Result<CachedStatement<'a>> {
        self.db.prepare_cached(sql)
    }

    pub(crate) fn next_receipt(&mut self) -> Receipt {
        *self.receipt += 1;
        Receipt(*self.receipt)
    }
}

/// The answer to a consumer, or what became of it.
#[derive(Debug)]
pub(crate) enum Standing<T> {
    /// The session stands.
    Ours(T),
    /// Its session is gone, or it is behind: another owns what it held.
    Dead,
    /// The file is gone, and all that was held with it.
    Forgotten,
}

/// Something to do in a transaction, with an answer.
pub(crate) trait Act: Send + Debug + 'static {
    /// What the caller learns.
    type Answer: Send + Debug + 'static;
    /// For errors: "failed to …".
    const NAME: &'static str;
    /// Whether it makes or keeps room, so that it may go on, and use the reserve, when the disk is full.
    const DRAINS: bool;

    /// As [`Act::DRAINS`], for an act of which some do.
    fn drains(&self) -> bool {
        Self::DRAINS
    }

    fn run(&mut self, turn: &mut Turn<'_>) -> rusqlite::Result<Self::Answer>;

    /// After the commit.
    fn committed(&mut self, _answer: &Self::Answer, _consumers: &mut Consumers) {}
}

/// An act without its type.
pub(crate) trait Job: Send + Debug {
    fn drains(&self) -> bool;
    fn run(&mut self, turn: &mut Turn<'_>) -> rusqlite::Result<()>;
    /// Ends it, committed or failed.
    fn finish(self: Box<Self>, outcome: Result<(), Ended>, consumers: &mut Consumers, url: &RedactedUrl);
}

/// Why an act was not committed.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It was tried.
    Failed(Failure),
    /// The act was not tried: the disk is full and the act would add to it, or the file is gone.
    Refused(Error),
}

impl Ended {
    pub(crate) fn explain(self, url: &RedactedUrl, act: &str) -> Error {
        match self {
            Self::Failed(failure) => failure.explain(url, act),
            Self::Refused(error) => error,
        }
    }
}

/// An act with its caller.
#[derive(Debug)]
pub(crate) struct Asked<A: Act> {
    act: A,
    answer: Option<A::Answer>,
    reply: oneshot::Sender<Result<A::Answer, Error>>,
}

impl<A: Act> Asked<A> {
    pub(crate) fn new(act: A) -> (Self, oneshot::Receiver<Result<A::Answer, Error>>) {
        let (reply, answered) = oneshot::channel();
        (Self { act, answer: None, reply }, answered)
    }
}

impl<A: Act> Job for Asked<A> {
    fn drains(&self) -> bool {
        self.act.drains()
    }

    fn run(&mut self, turn: &mut Turn<'_>) -> rusqlite::Result<()> {
        self.answer = Some(self.act.run(turn)?);
        Ok(())
    }

    fn finish(mut self: Box<Self>, outcome: Result<(), Ended>, consumers: &mut Consumers, url: &RedactedUrl) {
        // A caller that went away doesn't want its answer.
        match (outcome, self.answer.take()) {
            (Ok(()), Some(answer)) => {
                self.act.committed(&answer, consumers);
                drop(self.reply.send(Ok(answer)));
            }
            (Ok(()), None) => {}
            (Err(ended), _) => drop(self.reply.send(Err(ended.explain(url, A::NAME)))),
        }
    }
}
