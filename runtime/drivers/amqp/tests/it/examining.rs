//! What `rwork doctor` is told of a server.

use rwork_amqp::{Amqp, Options, QueueType, Role};
use rwork_broker::{Broker, Publish, Route};
use rwork_protocol::{Message, QueueName};

use crate::rabbitmq::RabbitServer;

async fn amqp(url: &str, queues: &[&str], change: impl Fn(&mut Options)) -> Amqp {
    let mut options = Options::parse(url, Role::Broker).unwrap();
    options.queues = queues.iter().map(|name| QueueName::new(*name).unwrap()).collect();
    change(&mut options);
    Amqp::connect(options).await.unwrap()
}

async fn send(amqp: &Amqp, queue: &str) {
    let route = Route::queue(&QueueName::new(queue).unwrap());
    amqp.publish_all(vec![Publish { route, message: Message::default(), not_before: None }]).await.unwrap();
}

#[tokio::test]
async fn a_server_is_known_with_its_queues() {
    let server = RabbitServer::shared();
    let vhost = server.fresh_vhost().await.unwrap();
    let url = server.url(&vhost);
    let quorum = amqp(&url, &[], |options| options.missing_queue_type = QueueType::Quorum).await;
    send(&quorum, "q").await;
    let ranked = amqp(&url, &[], |options| options.max_priority = Some(7)).await;
    send(&ranked, "ranked").await;
    send(&ranked, "ranked").await;

    let facts = amqp(&url, &["q", "ranked", "missing"], |_| {}).await.examine().await.unwrap();
    assert_eq!(facts.server, url.replace("guest:guest@", "***@"));
    assert_eq!(facts.product.as_deref(), Some("RabbitMQ"));
    assert!(
        facts
            .version
            .as_ref()
            .is_some_and(|version| version.starts_with(|first: char| first.is_ascii_digit()))
    );
    assert!(facts.cluster.as_ref().is_some_and(|name| name.contains('@')), "{facts:?}");
    assert_eq!((facts.channel_max, facts.frame_max, facts.heartbeat_s), (2047, 131_072, 60));
    assert_eq!(facts.round_trips.len(), 100);
    assert!(facts.confirmed_in.is_some() && facts.blocked.is_none());
    let queues: Vec<_> =
        facts.queues.iter().map(|queue| (queue.name.as_str(), queue.kind.as_deref(), queue.ready)).collect();
    assert_eq!(queues, [("q", Some("quorum"), 1), ("ranked", Some("classic"), 2), ("missing", None, 0)]);
    assert_eq!(facts.queues[1].arguments, [("x-max-priority".to_owned(), "7".to_owned())]);
    let names: Vec<_> = server.queues(&vhost).await.unwrap().into_iter().map(|queue| queue.name).collect();
    assert!(!names.contains(&"missing".to_owned()), "looking changes nothing: {names:?}");
}
