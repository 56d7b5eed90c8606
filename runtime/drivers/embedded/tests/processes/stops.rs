//! Processes that are stopped and go on (issue 10, fault 15).

use std::time::Duration;

use rustix::process::Signal;
use rwork_broker::{Broker, Room};
use rwork_protocol::TaskId;

use crate::roles::{Role, consume, id, message, open};

/// Several looks for the dead.
const STOPPED: Duration = Duration::from_secs(4);
const ONE: Room = Room { messages: 1, bytes: usize::MAX };

pub(crate) async fn a_stopped_process_keeps_what_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rwork.db");
    let broker = open(&path);
    let (held, other) = (TaskId::generate(), TaskId::generate());
    let mut holder = Role::start("holder", &path);
    broker.publish_all(vec![message(&held)]).await.unwrap();
    assert_eq!(holder.line(), format!("began {held}"));
    holder.stop();
    // Living consumers, old and new ones, look for the dead meanwhile.
    let survivor = consume(&broker).await;
    broker.publish_all(vec![message(&other)]).await.unwrap();
    assert_eq!(id(&survivor.receive(ONE).await.unwrap()[0]), other);
    let more = tokio::time::timeout(STOPPED, survivor.receive(ONE)).await;
    assert!(more.is_err(), "a stopped process lost what it holds: {more:?}");
    let newcomer = consume(&broker).await;
    assert!(tokio::time::timeout(STOPPED / 4, newcomer.receive(ONE)).await.is_err());
    holder.signal(Signal::CONT);
    holder.release();
    assert_eq!(holder.line(), "ended Ok([Done])");
}
