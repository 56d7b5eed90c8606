//! One opened file, with everything beside it that the writing thread needs.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use rusqlite::Connection;
use rwork_protocol::service::{Error, RedactedUrl};

use crate::bell::{Bells, Ear};
use crate::engine::Jobs;
use crate::error::{self, Failure};
use crate::files::{FileId, Files};
use crate::lock::FairLock;
use crate::network;
use crate::options::Options;
use crate::reader::Asks;
use crate::schema;
use crate::space::Space;

/// Opens the same path again and again.
#[derive(Clone, Debug)]
pub(crate) struct Opener {
    pub(crate) files: Files,
    pub(crate) options: Options,
    pub(crate) url: RedactedUrl,
    pub(crate) writes: Arc<Jobs>,
    pub(crate) reads: Arc<Asks>,
    /// A connection to a new file, on its way to the reading thread. Held for one move by either side.
    pub(crate) handover: Arc<Mutex<Option<Handover>>>,
}

/// How long the reading thread may take to close its connection: longer than any of its questions but a check of a large
/// file.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);

/// A word of the writing thread to the reading one.
#[derive(Debug)]
pub(crate) enum Handover {
    /// Read by this connection from now on.
    New(Connection),
    /// Close the connection, say so, and read nothing until there is a new one.
    Close(mpsc::Sender<()>),
}

/// The file.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) db: Connection,
    pub(crate) lock: FairLock,
    pub(crate) bells: Bells,
    pub(crate) space: Space,
    pub(crate) id: FileId,
    /// SQLite's log of it.
    pub(crate) log: Option<FileId>,
    /// SQLite's index of the log.
    pub(crate) index: Option<FileId>,
    /// `None`: no watch could be had, waiting is slower.
    _ear: Option<Ear>,
}

impl Opener {
    /// Opens the file for writing, made with its folders when missing. `old_log` is that of a file that stood there before.
    pub(crate) fn open(&self, old_log: Option<FileId>) -> Result<Opened, Error> {
        let Self { files, options, url, .. } = self;
        files.create_folders(url)?;
        self.refuse_network()?;
        let explain = |failure: Failure| failure.explain(url, "open the database");
        let lock = FairLock::open(files, options.busy_timeout)
            .map_err(|error| error::open_failed(url, &files.lock, error))?;
        let (db, id, log, index) = {
            // Two processes must not both make the schema.
            let _held = lock.hold().map_err(explain)?;
            files.discard_log(old_log);
            files.create(url)?;
            self.refuse_links()?;
            let db = schema::open_writer(&files.database, &lock, options, url)?;
            let id = files.id().map_err(|error| error::open_failed(url, &files.database, error))?;
            (db, id, files.log_id(), files.index_id())
        };
        let bells = Bells::open(files).map_err(|error| error::open_failed(url, &files.bell, error))?;
        let mut space = Space::new(files.clone(), options.ballast_bytes);
        space.prepare(&db);
        Ok(Opened { db, lock, bells, space, id, log, index, _ear: self.listen() })
    }

    /// A connection that only reads; the schema must be made.
    pub(crate) fn open_reader(&self) -> rusqlite::Result<Connection> {
        schema::open_reader(&self.files.database, &self.options)
    }

    /// Has the reading thread go on with the file that was opened; it must not open a new file before the writing thread.
    pub(crate) fn hand_over(&self) -> rusqlite::Result<()> {
        let reader = self.open_reader()?;
        self.give(Handover::New(reader));
        Ok(())
    }

    /// Has the reading thread close its connection, and waits for that: connections of one process share what SQLite has of
    /// the index, and keep a deleted one, until the last of them is closed.
    /// False when it takes too long.
    pub(crate) fn take_back(&self) -> bool {
        let (closed, is_closed) = mpsc::channel();
        self.give(Handover::Close(closed));
        is_closed.recv_timeout(CLOSED_WITHIN).is_ok()
    }

    fn give(&self, handover: Handover) {
        *self.handover.lock().unwrap_or_else(PoisonError::into_inner) = Some(handover);
        self.reads.ring();
    }

    fn refuse_network(&self) -> Result<(), Error> {
        match network::name(self.files.folder()) {
            Some(name) if !self.options.force => Err(error::refused(
                &self.url,
                &format!("it is on a network file system ({name}), where processes can't share it safely"),
                "choose a path on a local disk, or use Redis or RabbitMQ; `force=1` in the URL uses it all the same",
            )),
            _ => Ok(()),
        }
    }

    /// SQLite names its log after the path: two names would have two logs of one file, which damages it.
    fn refuse_links(&self) -> Result<(), Error> {
        let path = &self.files.database;
        let found = fs::metadata(path).map_err(|error| error::open_failed(&self.url, path, error))?;
        if found.nlink() <= 1 {
            return Ok(());
        }
        let why =
            format!("it has {} names (hard links), of which each would have a log of its own", found.nlink());
        Err(error::refused(&self.url, &why, "remove the other names; a symbolic link does no harm"))
    }

    fn listen(&self) -> Option<Ear> {
        let (writes, reads) = (Arc::clone(&self.writes), Arc::clone(&self.reads));
        Ear::open(&self.files, move || writes.ring(), move || reads.ring())
            .inspect_err(
                |error| tracing::warn!(%error, "no bell: waiting for messages and results is slower"),
            )
            .ok()
    }
}
