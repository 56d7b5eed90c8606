//! The thread that reads, on a connection of its own, so that readers never wait for a turn.
//!
//! Every read is a statement of its own: a reader that stays in a transaction keeps the write-ahead log from shrinking.
//! It also looks after those who wait for results, when the results' bell rings.

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::engine::LOOK_INTERVAL;
use crate::inbox::Inbox;
use crate::opening::{Handover, Opener};
use crate::schema;
use crate::watch::Watched;

/// Questions answered before the watches are looked at again.
const QUESTIONS_MAX: usize = 64;
/// After a look the thread rests four times as long, so that thousands of watches can't take a whole core. One watch
/// takes microseconds: its rest can't be noticed.
const REST_FACTOR: u32 = 4;

pub(crate) type Asks = Inbox<Question>;

/// What the thread is asked.
pub(crate) enum Question {
    /// To read something.
    Query(Box<dyn FnOnce(&Connection) + Send>),
    /// To tell somebody about changes of a result.
    Watch(Watched),
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Query(_) => "Query",
            Self::Watch(_) => "Watch",
        })
    }
}

/// Everything the thread owns.
#[derive(Debug)]
pub(crate) struct Reader {
    db: Connection,
    opener: Opener,
    inbox: Arc<Asks>,
    watches: Vec<Watched>,
    /// A bell was heard and not yet followed.
    stale: bool,
    rest_until: Instant,
}

impl Reader {
    pub(crate) fn new(db: Connection, opener: Opener) -> Self {
        let inbox = Arc::clone(&opener.reads);
        Self { db, opener, inbox, watches: Vec::new(), stale: false, rest_until: Instant::now() }
    }

    /// Works until the inbox is closed and empty.
    pub(crate) fn run(mut self) {
        let _abandon = Abandon(Arc::clone(&self.inbox));
        let mut looked = Instant::now();
        loop {
            let deadline = if self.watches.is_empty() {
                None
            } else if self.stale {
                Some(self.rest_until)
            } else {
                Some(looked + LOOK_INTERVAL)
            };
            let woken = self.inbox.wait(deadline, QUESTIONS_MAX);
            if woken.closed && woken.items.is_empty() {
                return;
            }
            self.follow_file();
            if !self.watches.is_empty() && looked.elapsed() >= LOOK_INTERVAL {
                self.stale = true;
                // It looks whether the file is still there.
                self.opener.writes.ring();
            }
            self.stale |= woken.rung;
            for question in woken.items {
                self.answer(question);
            }
            if self.stale && Instant::now() >= self.rest_until {
                looked = self.look();
            }
        }
    }

    /// Reads the file that the writing thread has opened anew.
    fn follow_file(&mut self) {
        let new = self.opener.handover.lock().unwrap_or_else(PoisonError::into_inner).take();
        match new {
            Some(Handover::New(db)) => {
                schema::leave(&self.db);
                (self.db, self.stale) = (db, true);
            }
            Some(Handover::Close(closed)) => {
                schema::leave(&self.db);
                // Questions meanwhile fail, as they do of a file that is gone.
                if let Ok(nothing) = Connection::open_in_memory() {
                    self.db = nothing;
                    // Nobody there: the writing thread has ended, or waits no longer.
                    let _ = closed.send(());
                }
            }
            None => {}
        }
    }

    fn answer(&mut self, question: Question) {
        match question {
            Question::Query(query) => query(&self.db),
            Question::Watch(mut watched) => {
                if watched.look(&self.db, self.opener.options.clock.now()) {
                    self.watches.push(watched);
                }
            }
        }
    }

    fn look(&mut self) -> Instant {
        let began = Instant::now();
        let now = self.opener.options.clock.now();
        self.stale = false;
        self.watches.retain_mut(|watched| watched.look(&self.db, now));
        let took: Duration = began.elapsed();
        self.rest_until = Instant::now() + took * REST_FACTOR;
        began
    }
}

struct Abandon(Arc<Asks>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.abandon();
    }
}
