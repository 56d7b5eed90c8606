//! Opening the file and starting its threads; the way from an async call to them and back.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use rusqlite::Connection;
use rwork_protocol::service::{Error, RedactedUrl};
use tokio::sync::oneshot;

use crate::acts::{Act, Asked};
use crate::bell::{Bells, Ear};
use crate::engine::{Engine, Jobs, Steady};
use crate::error::{self, Failure};
use crate::files::{FairLock, Files};
use crate::inbox::Inbox;
use crate::options::Options;
use crate::reader::{Asks, Question, Reader};
use crate::schema;
use crate::seat::Seats;
use crate::space::Space;

/// Broker and result backend in one file. Cloning shares the connection; the last clone (or consumer) to go ends it.
#[derive(Clone, Debug)]
pub struct Embedded {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) url: RedactedUrl,
    pub(crate) writes: Arc<Jobs>,
    pub(crate) reads: Arc<Asks>,
    /// Listens as long as the handle lives. `None`: no watch could be had, waiting is slower.
    _ear: Option<Ear>,
}

impl Embedded {
    /// Opens the file, made with its folders when missing, and starts the threads. Blocks for some milliseconds.
    ///
    /// # Errors
    /// [`Error::Url`] for options out of range; [`Error::Refused`] for a directory, a file that is no database of
    /// rwork's or of a newer rwork's, or one that can't be written; [`Error::Full`] and [`Error::Unreachable`] for the
    /// disk's own troubles.
    pub fn open(options: Options) -> Result<Self, Error> {
        let url = RedactedUrl::new(&format!("embedded:{}", options.path.display()));
        options.check().map_err(|expected| Error::Url { url: url.clone(), expected })?;
        let files = Files::beside(&options.path);
        files.create(&url)?;
        let failed = |path: &Path, error| error::open_failed(&url, path, error);
        let lock = FairLock::open(&files.lock).map_err(|error| failed(&files.lock, error))?;
        let writer = {
            // Two processes must not both make the schema.
            let _held = lock.hold().map_err(|error| failed(&files.lock, error))?;
            schema::open_writer(&files.database, options.synchronous, &url)?
        };
        let reader = schema::open_reader(&files.database)
            .map_err(|error| Failure::from(error).explain(&url, "open the database"))?;
        let bells = Bells::open(&files).map_err(|error| failed(&files.bell, error))?;
        let mut space = Space::new(files.clone(), options.ballast_bytes);
        space.prepare(&writer);

        let inner =
            Inner { writes: Arc::new(Inbox::new()), reads: Arc::new(Inbox::new()), _ear: None, options, url };
        inner.start(&files, lock, writer, reader, bells, space)
    }

    /// Reads the whole file and says what is damaged in it, in SQLite's words; empty: nothing is. Takes a moment for each
    /// hundred megabytes, in which nobody else reads results through this handle.
    ///
    /// # Errors
    /// When the file can't be read.
    pub async fn check_integrity(&self) -> Result<Vec<String>, Error> {
        let found = self.inner.read("check the database", |db| {
            let mut check = db.prepare("PRAGMA integrity_check")?;
            check.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()
        });
        Ok(found.await?.into_iter().filter(|line| line != "ok").collect())
    }
}

impl Inner {
    fn start(
        mut self,
        files: &Files,
        lock: FairLock,
        writer: Connection,
        reader: Connection,
        bells: Bells,
        space: Space,
    ) -> Result<Embedded, Error> {
        let (writes, reads) = (Arc::clone(&self.writes), Arc::clone(&self.reads));
        self._ear = Ear::open(files, move || writes.ring(), move || reads.ring())
            .inspect_err(
                |error| tracing::warn!(%error, "no bell: waiting for messages and results is slower"),
            )
            .ok();
        let engine = Engine {
            db: writer,
            lock,
            bells,
            space,
            clock: self.options.clock.clone(),
            url: self.url.clone(),
            inbox: Arc::clone(&self.writes),
            steady: Steady::new(self.options.lease),
            sweep_interval: self.options.sweep_interval,
            sweep_at: Instant::now(),
            seats: Seats::default(),
            receipt: 0,
        };
        let reader = Reader::new(reader, self.options.clock.clone(), Arc::clone(&self.reads));
        // From here on dropping `self` ends the threads.
        spawn("rwork-db-write", move || engine.run(), &self.url)?;
        spawn("rwork-db-read", move || reader.run(), &self.url)?;
        Ok(Embedded { inner: Arc::new(self) })
    }

    /// Has an act done in the next turn.
    ///
    /// # Cancel safety
    /// Dropped before it is queued it changes nothing; after that it is done all the same.
    pub(crate) async fn act<A: Act>(&self, act: A) -> Result<A::Answer, Error> {
        let (job, answered) = Asked::new(act);
        if !self.writes.send(Box::new(job)).await {
            return Err(error::closed(&self.url));
        }
        answered.await.map_err(|_| error::closed(&self.url))?
    }

    /// Has something read.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        what: &str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answered) = oneshot::channel();
        let ask = move |db: &Connection| drop(reply.send(query(db)));
        if !self.reads.send(Question::Query(Box::new(ask))).await {
            return Err(error::closed(&self.url));
        }
        let answer = answered.await.map_err(|_| error::closed(&self.url))?;
        answer.map_err(|error| Failure::from(error).explain(&self.url, what))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.writes.close();
        self.reads.close();
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static, url: &RedactedUrl) -> Result<(), Error> {
    thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|error| Error::Act {
        act: format!("start a thread for {url}"),
        retryable: true,
        source: Box::new(error),
    })?;
    Ok(())
}
