//! Schema, its versions, and how a connection is set up.
//!
//! `user_version` counts the migrations that were applied; a file of a newer rwork is refused, never guessed at.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use rwork_protocol::service::{Error, RedactedUrl};

use crate::error;
use crate::lock::FairLock;
use crate::options::{Options, Synchronous};

/// `rwrk`: tells our files from others'.
const APPLICATION_ID: i32 = 0x7277_726b;
/// A log that grew larger, by one large transaction, is cut to this when it starts again.
const LOG_BYTES_KEPT: i64 = 8 << 20;
/// More statements than we have.
const STATEMENTS_MAX: usize = 64;

/// Each is applied once, in order. Never change one that was released: add another.
const MIGRATIONS: [&str; 2] = [V1, V2];

const V1: &str = "
CREATE TABLE queue(name TEXT PRIMARY KEY) WITHOUT ROWID;

-- prio: 0 is first. eta: held back until then. owner: the session that holds it. tries: deliveries without an outcome.
CREATE TABLE msg(seq INTEGER PRIMARY KEY, queue TEXT NOT NULL, prio INT NOT NULL, eta INT, owner INT,
  tries INT NOT NULL DEFAULT 0,
  headers BLOB NOT NULL, content_type TEXT NOT NULL, content_encoding TEXT NOT NULL, correlation_id TEXT, reply_to TEXT,
  priority INT, delivery_mode INT, expiration TEXT, body BLOB NOT NULL);
CREATE INDEX msg_ready ON msg(queue, prio, seq) WHERE owner IS NULL AND eta IS NULL;
CREATE INDEX msg_held ON msg(owner) WHERE owner IS NOT NULL;
CREATE INDEX msg_eta ON msg(eta, queue) WHERE eta IS NOT NULL;

-- until: end of the lease; lease: its length, which shows a clock that was set back.
CREATE TABLE session(owner INTEGER PRIMARY KEY, until INT NOT NULL, lease INT NOT NULL, name TEXT NOT NULL);

CREATE TABLE dead(id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, prio INT NOT NULL, tries INT NOT NULL,
  kind TEXT NOT NULL, detail TEXT NOT NULL, worker TEXT NOT NULL, at INT NOT NULL,
  headers BLOB NOT NULL, content_type TEXT NOT NULL, content_encoding TEXT NOT NULL, correlation_id TEXT, reply_to TEXT,
  priority INT, delivery_mode INT, expiration TEXT, body BLOB NOT NULL);

-- id: the 16 bytes of a UUID, or text. expires NULL: never. final: a SUCCESS, which stands.
CREATE TABLE result(id PRIMARY KEY NOT NULL, expires INT, final INT NOT NULL, body BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX result_expires ON result(expires) WHERE expires IS NOT NULL;
";

// Processes of the first edition that have the file open go on with it: every column of theirs keeps its meaning, and a
// session of ours has a lease that never ends, so that they end none.
const V2: &str = "
-- msg.tries: starts that were written down. redelivered: a consumer died while it held the message, or sent it back.
ALTER TABLE msg ADD COLUMN redelivered INT NOT NULL DEFAULT 0;
CREATE INDEX msg_delayed ON msg(queue) WHERE eta IS NOT NULL;
CREATE INDEX dead_queue ON dead(queue);

-- number: the last batch of commits; answers: one line for each commit in it.
ALTER TABLE session ADD COLUMN number INT NOT NULL DEFAULT 0;
ALTER TABLE session ADD COLUMN answers TEXT NOT NULL DEFAULT '';
";

/// The connection that writes; makes or migrates the schema. Call it while the lock is held.
pub(crate) fn open_writer(
    path: &Path,
    lock: &FairLock,
    options: &Options,
    url: &RedactedUrl,
) -> Result<Connection, Error> {
    let explain = |failure: rusqlite::Error| lock.explain(failure).explain(url, "open the database");
    let mut db = connect(path, options).map_err(explain)?;
    let version = check_version(&db, url).map_err(|refusal| match refusal {
        Refusal::Sql(failure) => explain(failure),
        Refusal::Said(error) => error,
    })?;
    if version == 0 {
        // Free pages can then be given back when the disk is full.
        db.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(explain)?;
    }
    let mode = set_up(&db, options.synchronous).map_err(explain)?;
    if mode != "wal" {
        let why = "its file system can't be shared by processes";
        return Err(error::refused(url, why, "choose a path on a local disk"));
    }
    migrate(&mut db, version).map_err(explain)?;
    Ok(db)
}

/// A connection that only reads.
pub(crate) fn open_reader(path: &Path, options: &Options) -> rusqlite::Result<Connection> {
    let db = connect(path, options)?;
    db.pragma_update(None, "query_only", true)?;
    Ok(db)
}

/// Has a connection to a file that is gone close without a trace: what it would tidy up stands beside another file now.
pub(crate) fn leave(db: &Connection) {
    if let Err(error) = db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true) {
        tracing::debug!(%error, "failed to leave a database that is gone");
    }
}

fn connect(path: &Path, options: &Options) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    // Behind the fair lock, for strangers such as the `sqlite3` shell.
    db.busy_timeout(options.busy_timeout)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    db.pragma_update(None, "cache_size", -16_384)?;
    Ok(db)
}

/// Returns the journal mode that could be had.
fn set_up(db: &Connection, synchronous: Synchronous) -> rusqlite::Result<String> {
    db.pragma_update(None, "synchronous", synchronous.as_str())?;
    db.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)?;
    db.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
}

enum Refusal {
    Sql(rusqlite::Error),
    Said(Error),
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

fn check_version(db: &Connection, url: &RedactedUrl) -> Result<usize, Refusal> {
    let pragma = |name| db.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application != APPLICATION_ID && (application != 0 || version != 0 || tables != 0) {
        let why = "it is another program's SQLite database";
        return Err(Refusal::Said(error::refused(url, why, "name another file")));
    }
    match usize::try_from(version) {
        Ok(version) if version <= MIGRATIONS.len() => Ok(version),
        _ => {
            let why =
                format!("its schema has version {version}, and this rwork knows up to {}", MIGRATIONS.len());
            Err(Refusal::Said(error::refused(
                url,
                &why,
                "use the newer rwork that wrote it, or name another file",
            )))
        }
    }
}

fn migrate(db: &mut Connection, version: usize) -> rusqlite::Result<()> {
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(version) {
        let step = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        step.execute_batch(migration)?;
        step.pragma_update(None, "user_version", (index + 1) as i64)?;
        step.pragma_update(None, "application_id", APPLICATION_ID)?;
        step.commit()?;
    }
    Ok(())
}
