//! A server of a test's own that is starved, paused, killed.

use std::time::Duration;

use rwork_amqp::{Amqp, Error, Options, Role};
use rwork_backend::{ResultBackend, Store};
use rwork_broker::{Broker, Publish, Route};
use rwork_protocol::{Message, QueueName, Record, State, TaskId};
use tokio::time::timeout;

use crate::connecting::{connect, refusal, shown, works};
use crate::rabbitmq::{RabbitServer, Room};

/// A wait that is longer has no end.
const HANG: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lacks_memory_or_disk_is_waited_for() {
    let server = RabbitServer::start().unwrap();
    for room in Room::ALL {
        let url = format!("{}?heartbeat=1", server.url(&server.fresh_vhost().await.unwrap()));
        let amqp = connect(&url).await;
        works(&amqp).await;
        server.starve(room).await.unwrap();
        let facts = timeout(HANG, amqp.examine()).await.unwrap().unwrap();
        assert_eq!(facts.blocked.as_deref(), Some(room.complaint()));
        let queue = QueueName::new("works").unwrap();
        let mut publishing = Box::pin(amqp.publish_all(vec![to(&queue)]));
        // Longer than two heartbeats, which nobody sends on a blocked connection.
        let waits = timeout(Duration::from_secs(3), &mut publishing).await;
        assert!(waits.is_err(), "it waits as long as the alarm lasts: {waits:?}");
        // Who consumes is not blocked, and neither is who connects.
        assert_eq!(timeout(HANG, amqp.purge(&queue)).await.expect("an answer").unwrap(), 0);
        connect(&url).await;
        server.feed(room).await.unwrap();
        timeout(HANG, publishing).await.expect("the alarm is over").unwrap();
        assert_eq!(amqp.purge(&queue).await.unwrap(), 1, "exactly once");
        let facts = timeout(HANG, amqp.examine()).await.unwrap().unwrap();
        assert!(facts.blocked.is_none() && facts.confirmed_in.is_some(), "{facts:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_connections_and_never_answers_is_told_and_found_again() {
    let server = RabbitServer::start().unwrap();
    let url = server.url(&server.fresh_vhost().await.unwrap());
    let options = Options::parse(&format!("{url}?heartbeat=1"), Role::Broker).unwrap();
    let amqp = Amqp::connect(options).await.unwrap();
    works(&amqp).await;
    server.pause().unwrap();
    let line = refusal(&url).await;
    assert!(line.contains("it takes connections, but has not answered within 4 s"), "{line}");
    // Nobody hears a heartbeat: the connection that stood is given up, too.
    let queue = QueueName::new("works").unwrap();
    let error = timeout(HANG, amqp.purge(&queue)).await.expect("an end").unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{}", shown(&error));
    server.resume().unwrap();
    again(&amqp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_killed_is_found_again() {
    let server = RabbitServer::start().unwrap();
    let vhost = server.fresh_vhost().await.unwrap();
    let amqp = connect(&server.url(&vhost)).await;
    works(&amqp).await;
    let queue = amqp.reply_to().await.unwrap().unwrap();
    server.kill_9().unwrap();
    let error = amqp.purge(&QueueName::new("works").unwrap()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{}", shown(&error));
    let line = refusal(&server.url(&vhost)).await;
    assert!(line.contains("connection refused [start the server there"), "{line}");
    server.start_again().unwrap();
    again(&amqp).await;
    // Results come again, too, to the same queue.
    let id = TaskId::generate();
    let record = Record::new(id.clone(), State::Success, &b"1"[..]);
    let stored = async {
        while amqp.get(std::slice::from_ref(&id)).await.unwrap() == [None] {
            let reply_to = Some(queue.clone());
            let store = Store { record: record.clone(), expires: None, reply_to, correlation_id: None };
            amqp.store(vec![store]).await.unwrap();
        }
    };
    timeout(HANG, stored).await.expect("results");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_refused_works_once_it_is_put_right() {
    let server = RabbitServer::start().unwrap();
    let vhost = server.fresh_vhost().await.unwrap();
    server.add_user("lena", "old").await.unwrap();
    server.permit("lena", &vhost).await.unwrap();
    let amqp = connect(&server.url_of("lena", "old", &vhost)).await;
    works(&amqp).await;
    server.set_password("lena", "new").await.unwrap();
    let queue = QueueName::new("works").unwrap();
    let refused = async {
        loop {
            // A server may not know yet of a connection that was just made: it is asked until it has closed ours.
            server.close_connections(&vhost, "maintenance").await.unwrap();
            match amqp.purge(&queue).await {
                Err(Error::Refused { why, .. }) => break why,
                // The last to hear of the loss.
                Err(Error::Unreachable { .. }) | Ok(_) => {}
                Err(error) => panic!("{}", shown(&error)),
            }
        }
    };
    let why = timeout(HANG, refused).await.expect("a refusal");
    assert_eq!(why, "it does not know this user with this password");
    server.set_password("lena", "old").await.unwrap();
    again(&amqp).await;
}

fn to(queue: &QueueName) -> Publish {
    Publish { route: Route::queue(queue), message: Message::default(), not_before: None }
}

/// It works without anybody's doing.
async fn again(amqp: &Amqp) {
    let queue = QueueName::new("works").unwrap();
    let found = async { while amqp.purge(&queue).await.is_err() {} };
    timeout(HANG, found).await.expect("a new connection");
    let taken = async { while amqp.publish_all(vec![to(&queue)]).await.is_err() {} };
    timeout(HANG, taken).await.expect("a new connection");
}
