//! Memory of a driver about one consumer, in its process.

use std::collections::BTreeSet;

use rwork_broker::{Batch, Committed, Delivery, Ending, Receipt, Resumed, Room};

use crate::call::{Close, CommitBatch, Renew, Resume, Take};
use crate::member::{ConsumerId, Line, Token};

/// A driver's memory of its consumer.
#[derive(Clone, Debug)]
pub struct Driver {
    line: Line,
    /// Tokens that the store may have: the line's, and those of attempts without an answer.
    accepted: Vec<Token>,
    /// No call goes out until it is resumed.
    is_broken: bool,
    /// The store knows it as dead: it is answered what became of its last batch, and nothing else.
    is_dead: bool,
    /// The number of the next delivery.
    next: u64,
    /// Taken, and not handed to the caller.
    stash: Vec<Delivery>,
    /// Handed to the caller, and not settled.
    known: BTreeSet<Receipt>,
}

impl Driver {
    /// A consumer that was made.
    pub fn new(consumer: ConsumerId, token: Token, incarnation: u64) -> Self {
        Self {
            line: Line { consumer, token, incarnation },
            accepted: vec![token],
            is_broken: false,
            is_dead: false,
            next: 1,
            stash: Vec::new(),
            known: BTreeSet::new(),
        }
    }

    /// Its line.
    pub fn line(&self) -> Line {
        self.line
    }

    /// True if it must be resumed first.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// True if a batch may be sent.
    pub fn may_commit(&self) -> bool {
        self.is_dead || !self.is_broken
    }

    /// A call of it was not answered, or refused.
    pub fn broke(&mut self) {
        self.is_broken = true;
    }

    /// Deliveries that it knows to be held.
    pub fn held(&self) -> usize {
        self.known.len() + self.stash.len()
    }

    /// True if deliveries wait to be handed out.
    pub fn has_stash(&self) -> bool {
        !self.stash.is_empty()
    }

    /// The call that takes more.
    pub fn take(&self, room: Room) -> Take {
        Take { line: self.line, first: self.next, room }
    }

    /// The answer to [`Driver::take`].
    pub fn took(&mut self, deliveries: Vec<Delivery>) {
        let last = deliveries.iter().map(|delivery| delivery.receipt.0 + 1).max();
        self.next = self.next.max(last.unwrap_or(0));
        self.stash.extend(deliveries);
    }

    /// Numbers that may have been given by a call without an answer are not given again.
    pub fn skip(&mut self, numbers: usize) {
        self.next += numbers as u64;
    }

    /// Hands deliveries to the caller.
    pub fn hand_out(&mut self, most: usize) -> Vec<Delivery> {
        let out: Vec<_> = self.stash.drain(..most.min(self.stash.len())).collect();
        self.known.extend(out.iter().map(|delivery| delivery.receipt));
        out
    }

    /// The call that commits.
    pub fn commit(&self, batch: &Batch) -> CommitBatch {
        CommitBatch { line: self.line, batch: batch.clone() }
    }

    /// The answer to [`Driver::commit`].
    pub fn committed(&mut self, batch: &Batch, answers: &[Committed]) {
        for (commit, answer) in batch.commits.iter().zip(answers) {
            let is_over = match answer {
                Committed::Done => matches!(commit.ending, Ending::Settle(_)),
                Committed::Lost => true,
                Committed::Refused(_) => false,
            };
            if let Some(receipt) = commit.ending.receipt().filter(|_| is_over) {
                self.known.remove(&receipt);
            }
        }
    }

    /// The call that renews.
    pub fn renew(&self) -> Renew {
        Renew { line: self.line }
    }

    /// The call that resumes, with a new token.
    pub fn resume(&mut self, token: Token) -> Resume {
        self.is_broken = true;
        // What was not handed out is told as new.
        self.stash.clear();
        let line = Line { token, ..self.line };
        let call =
            Resume { line, accepted: self.accepted.clone(), known: self.known.clone(), first: self.next };
        self.accepted.push(token);
        call
    }

    /// The answer to [`Driver::resume`].
    pub fn resumed(&mut self, token: Token, resumed: &Resumed) {
        self.line.token = token;
        self.accepted = vec![token];
        let Resumed::Stands { fresh, gone } = resumed else {
            self.is_dead = true;
            return;
        };
        self.is_broken = false;
        let last = fresh.iter().map(|delivery| delivery.receipt.0 + 1).max();
        self.next = self.next.max(last.unwrap_or(0));
        self.known.extend(fresh.iter().map(|delivery| delivery.receipt));
        self.known.retain(|receipt| !gone.contains(receipt));
    }

    /// A lost connection took everything with it: a new consumer in its place. Returns what is not held any more.
    pub fn begin_anew(&mut self, consumer: ConsumerId, token: Token, incarnation: u64) -> Vec<Receipt> {
        let next = self.next;
        let gone = std::mem::take(&mut self.known).into_iter().collect();
        *self = Self { next, ..Self::new(consumer, token, incarnation) };
        gone
    }

    /// The call that closes.
    pub fn close(&self, started: &[Receipt]) -> Close {
        Close { line: self.line, started: started.to_vec() }
    }
}
