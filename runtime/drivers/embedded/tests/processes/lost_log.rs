//! SQLite's files beside the database deleted while processes use it: all of them agree on one log again.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use rusqlite::Connection;
use rwork_broker::{Broker, Room};

use crate::roles::{Role, consume, id, message, open};

const HANG: Duration = Duration::from_secs(60);
const ROOM: Room = Room { messages: 100, bytes: usize::MAX };

/// Messages that another process sends afterwards reach a consumer that was there before.
pub(crate) async fn what_others_send_after_a_deleted_log_is_seen() {
    for suffix in ["-shm", "-wal"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rwork.db");
        let broker = open(&path);
        let consumer = consume(&broker).await;
        broker.publish_all(vec![message(&rwork_protocol::TaskId::generate())]).await.unwrap();
        assert_eq!(consumer.receive(ROOM).await.unwrap().len(), 1);
        let stranger = Connection::open(&path).unwrap();
        stranger.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        drop(stranger);
        fs::remove_file(folder.path().join(format!("rwork.db{suffix}"))).unwrap();
        let producer = Role::start("producer", &path);
        let accepted = producer.line();
        let mut missing: BTreeSet<String> =
            accepted.strip_prefix("accepted ").unwrap().split(' ').map(str::to_owned).collect();
        while !missing.is_empty() {
            // Refused while the file is opened anew.
            match tokio::time::timeout(HANG, consumer.receive(ROOM)).await.expect(suffix) {
                Ok(came) => came.iter().for_each(|delivery| _ = missing.remove(id(delivery).as_str())),
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
        }
        drop(producer);
        assert_eq!(broker.check_integrity().await.unwrap(), [""; 0], "{suffix}");
    }
}
