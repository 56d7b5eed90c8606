//! Every driver passes the suites of its traits.

use std::path::Path;
use std::sync::Arc;

use rwork_amqp::{Amqp, QueueType};
use rwork_backend::ResultBackend;
use rwork_broker::Broker;
use rwork_embedded::{Embedded, Options};
use rwork_redis::{Redis, Role};
use rwork_tests::conformance::{Place, backend, broker};
use rwork_tests::rabbitmq::RabbitServer;
use rwork_tests::redis::RedisServer;

fn embedded(folder: &Path, place: &Place) -> anyhow::Result<Embedded> {
    let path = folder.join(format!("{}.db", place.name));
    Ok(Embedded::open(Options { path, lease: place.lease, ..Options::default() })?)
}

async fn redis(database: u32, role: Role, place: &Place) -> anyhow::Result<Redis> {
    let mut options = rwork_redis::Options::parse(&RedisServer::shared().url(database), role)?;
    options.lease = place.lease;
    options.transport.global_keyprefix = format!("{}:", place.name);
    Ok(Redis::connect(options).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_broker() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    broker::suite(async |place| Ok(Arc::new(embedded(folder.path(), &place)?) as Arc<dyn Broker>)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_backend() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    backend::suite(async |place| Ok(Arc::new(embedded(folder.path(), &place)?) as Arc<dyn ResultBackend>))
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_broker() -> anyhow::Result<()> {
    let database = RedisServer::fresh_database();
    broker::suite(async |place| Ok(Arc::new(redis(database, Role::Broker, &place).await?) as Arc<dyn Broker>))
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_backend() -> anyhow::Result<()> {
    let database = RedisServer::fresh_database();
    backend::suite(async |place| {
        Ok(Arc::new(redis(database, Role::Backend, &place).await?) as Arc<dyn ResultBackend>)
    })
    .await
}

/// A virtual host for each case, with queues of one type.
async fn amqp(suite: &str, queue_type: QueueType, place: &Place) -> anyhow::Result<Arc<dyn Broker>> {
    let server = RabbitServer::shared();
    let vhost = format!("{suite}-{}", place.name);
    // A second connection to the same place finds it there.
    server.add_vhost(&vhost).await?;
    let mut options = rwork_amqp::Options::parse(&server.url(&vhost), rwork_amqp::Role::Broker)?;
    (options.default_queue_type, options.missing_queue_type) = (queue_type, queue_type);
    Ok(Arc::new(Amqp::connect(options).await?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn amqp_classic() -> anyhow::Result<()> {
    broker::suite(async |place| amqp("conformance-classic", QueueType::Classic, &place).await).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn amqp_quorum() -> anyhow::Result<()> {
    broker::suite(async |place| amqp("conformance-quorum", QueueType::Quorum, &place).await).await
}
