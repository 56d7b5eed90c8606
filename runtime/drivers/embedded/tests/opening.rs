//! What `open` makes, and what it refuses, each with one clear error.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use rwork_broker::Broker;
use rwork_embedded::{Embedded, Error, Options};

fn at(path: impl Into<PathBuf>) -> Options {
    Options { path: path.into(), ..Options::default() }
}

fn refusal(path: &Path) -> String {
    match Embedded::open(at(path)) {
        Err(error @ Error::Refused { .. }) => {
            assert!(!error.is_retryable() && error.hint().is_some(), "{error}");
            error.to_string()
        }
        other => panic!("expected a refusal of {}, got {other:?}", path.display()),
    }
}

#[tokio::test]
async fn makes_folders_and_private_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/rwork.db");
    let broker = Embedded::open(at(&path)).unwrap();
    broker.queues().await.unwrap();
    let mut names = Vec::new();
    for entry in fs::read_dir(path.parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        let found = entry.metadata().unwrap();
        let expected = if found.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(found.permissions().mode() & 0o777, expected, "{:?}", entry.path());
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    let expected = ["", "-ballast", "-bell", "-consumers", "-done", "-lock", "-shm", "-wal"]
        .map(|end| format!("rwork.db{end}"));
    assert_eq!(names, expected);
    assert_eq!(fs::metadata(path.with_file_name("rwork.db-ballast")).unwrap().len(), 8 << 20);
}

#[test]
fn refuses_what_is_no_database_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    let said = refusal(folder.path());
    assert!(said.ends_with("refused: it is a directory"), "{said}");

    let text = folder.path().join("notes.txt");
    fs::write(&text, "no database, and long enough to be looked at by SQLite: ".repeat(100)).unwrap();
    let said = refusal(&text);
    assert!(said.ends_with("refused: it is damaged or not a database"), "{said}");
    assert!(fs::read_to_string(&text).unwrap().starts_with("no database"), "the file was changed");

    let foreign = folder.path().join("other.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE t(a)").unwrap();
    let said = refusal(&foreign);
    assert!(said.ends_with("refused: it is another program's SQLite database"), "{said}");

    let said = refusal(&text.join("rwork.db"));
    assert!(said.contains("a folder of") && said.ends_with("is a file"), "{said}");
}

#[test]
fn refuses_a_newer_schema_and_leaves_it_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rwork.db");
    drop(Embedded::open(at(&path)).unwrap());
    let db = Connection::open(&path).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    let said = refusal(&path);
    assert!(said.ends_with("its schema has version 99, and this rwork knows up to 2"), "{said}");
    assert_eq!(db.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).unwrap(), 99);
}

#[test]
fn refuses_a_place_that_cannot_be_written() {
    // Not even the superuser makes files there.
    let error = Embedded::open(at("/proc/rwork.db")).unwrap_err();
    let said = format!("{error}");
    assert!(said.contains("/proc/rwork.db"), "{said}");
}

#[test]
fn refuses_options_out_of_range() {
    let folder = tempfile::tempdir().unwrap();
    let busy_timeout = Duration::from_secs(61);
    let options = Options { busy_timeout, ..at(folder.path().join("rwork.db")) };
    let said = Embedded::open(options).unwrap_err().to_string();
    assert!(said.contains("expected `busy_timeout` to be 0.1..=60 seconds (not 61)"), "{said}");
}

#[tokio::test]
async fn many_open_one_new_file_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rwork.db");
    let opening: Vec<_> = (0..8)
        .map(|_| {
            let options = at(&path);
            std::thread::spawn(move || Embedded::open(options))
        })
        .collect();
    for opened in opening {
        let broker = opened.join().unwrap().unwrap();
        assert!(broker.queues().await.unwrap().is_empty());
    }
}

/// Two names would have two logs of one file.
#[test]
fn a_file_with_a_second_name_is_refused_and_a_symbolic_link_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (path, second) = (folder.path().join("rwork.db"), folder.path().join("second.db"));
    drop(Embedded::open(at(&path)).unwrap());
    fs::hard_link(&path, &second).unwrap();
    for name in [&path, &second] {
        assert!(refusal(name).contains("2 names (hard links)"), "{}", refusal(name));
    }
    fs::remove_file(&second).unwrap();
    std::os::unix::fs::symlink(&path, &second).unwrap();
    drop((Embedded::open(at(&path)).unwrap(), Embedded::open(at(&second)).unwrap()));
}
