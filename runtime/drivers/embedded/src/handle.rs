//! Opening the file and starting its threads; the way from an async call to them and back.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use rusqlite::Connection;
use rwork_protocol::service::{Error, RedactedUrl};
use tokio::sync::oneshot;

use crate::acts::{Act, Asked};
use crate::engine::{Engine, Jobs};
use crate::error::{self, Failure};
use crate::files::Files;
use crate::inbox::Inbox;
use crate::opening::Opener;
use crate::options::Options;
use crate::reader::{Asks, Question, Reader};

/// Broker and result backend in one file. Cloning shares the connection; the last clone (or consumer) to go ends it.
#[derive(Clone, Debug)]
pub struct Embedded {
    pub(crate) inner: Arc<Inner>,
    /// Commits carry no records.
    pub(crate) results_elsewhere: bool,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) url: RedactedUrl,
    pub(crate) files: Files,
    pub(crate) writes: Arc<Jobs>,
    pub(crate) reads: Arc<Asks>,
}

impl Embedded {
    /// A broker alone, on the same file, for workers that keep results in another store: commits carry no records.
    #[must_use]
    pub fn with_results_elsewhere(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), results_elsewhere: true }
    }

    /// Opens the file, made with its folders when missing, and starts the threads. Blocks for some milliseconds, or until
    /// another process unlocks the file, at most [`Options::busy_timeout`].
    ///
    /// # Errors
    /// [`Error::Url`] for options out of range; [`Error::Refused`] for a directory, a network file system, a file that is
    /// no database of rwork's or of a newer rwork's, or one that can't be written; [`Error::Full`] and
    /// [`Error::Unreachable`] for the disk's own troubles; a retryable [`Error::Act`] when another process keeps the file
    /// locked.
    pub fn open(options: Options) -> Result<Self, Error> {
        let url = RedactedUrl::new(&format!("embedded:{}", options.path.display()));
        options.check().map_err(|expected| Error::Url { url: url.clone(), expected })?;
        let files = Files::beside(&canonical(&options.path));
        let inner =
            Inner { options, url, files, writes: Arc::new(Inbox::new()), reads: Arc::new(Inbox::new()) };
        inner.start()
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

/// The path of a file that is there without symbolic links, by which SQLite names its own files: ours must not have other
/// names.
fn canonical(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

impl Inner {
    fn start(self) -> Result<Embedded, Error> {
        let opener = Opener {
            files: self.files.clone(),
            options: self.options.clone(),
            url: self.url.clone(),
            writes: Arc::clone(&self.writes),
            reads: Arc::clone(&self.reads),
            handover: Arc::default(),
        };
        let opened = opener.open(None)?;
        let reading = opener
            .open_reader()
            .map_err(|error| Failure::from(error).explain(&self.url, "open the database"))?;
        let reader = Reader::new(reading, opener.clone());
        let engine = Engine::new(opened, opener);
        // From here on dropping `self` ends the threads.
        spawn("rwork-db-write", move || engine.run(), &self.url)?;
        spawn("rwork-db-read", move || reader.run(), &self.url)?;
        Ok(Embedded { inner: Arc::new(self), results_elsewhere: false })
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
