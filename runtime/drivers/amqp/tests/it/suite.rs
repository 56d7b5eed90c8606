//! temporary
use std::sync::Arc;
use rwork_amqp::{Amqp, QueueType};
use rwork_broker::Broker;
use crate::harness::conformance::{Place, broker};
use crate::rabbitmq::RabbitServer;

async fn amqp(suite: &str, queue_type: QueueType, place: &Place) -> anyhow::Result<Arc<dyn Broker>> {
    let server = RabbitServer::shared();
    let vhost = format!("{suite}-{}", place.name);
    server.add_vhost(&vhost).await?;
    let mut options = rwork_amqp::Options::parse(&server.url(&vhost), rwork_amqp::Role::Broker)?;
    (options.default_queue_type, options.missing_queue_type) = (queue_type, queue_type);
    if suite.ends_with("prio") { options.max_priority = Some(10); }
    Ok(Arc::new(Amqp::connect(options).await?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn amqp_classic() -> anyhow::Result<()> {
    broker::suite(async |place| amqp("cc", QueueType::Classic, &place).await).await
}
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn amqp_prio() -> anyhow::Result<()> {
    broker::suite(async |place| amqp("prio", QueueType::Classic, &place).await).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn amqp_quorum() -> anyhow::Result<()> {
    broker::suite(async |place| amqp("qq", QueueType::Quorum, &place).await).await
}
