//! Every driver passes the suites of its traits.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use redis::cmd;
use rwork_amqp::{Amqp, QueueType};
use rwork_backend::ResultBackend;
use rwork_broker::Broker;
use rwork_embedded::{Embedded, Options};
use rwork_redis::{Redis, Role};
use rwork_tests::conformance::broker::Ground;
use rwork_tests::conformance::{Place, backend, broker};
use rwork_tests::rabbitmq::RabbitServer;
use rwork_tests::redis::RedisServer;
use tempfile::TempDir;

/// A database for each place, in one folder.
struct Files(TempDir);

impl Files {
    fn path(&self, place: &Place) -> PathBuf {
        self.0.path().join(format!("{}.db", place.name))
    }
}

fn embedded(path: PathBuf) -> anyhow::Result<Embedded> {
    Ok(Embedded::open(Options { path, ..Options::default() })?)
}

#[async_trait]
impl Ground for Files {
    async fn connect(&self, place: Place) -> anyhow::Result<Arc<dyn Broker>> {
        Ok(Arc::new(embedded(self.path(&place))?))
    }

    async fn results(&self, place: Place) -> anyhow::Result<Option<Arc<dyn ResultBackend>>> {
        Ok(Some(Arc::new(embedded(self.path(&place))?)))
    }

    async fn lose_all(&self, place: Place) -> anyhow::Result<bool> {
        let name = format!("{}.db", place.name);
        // The file and what SQLite keeps beside it.
        for file in std::fs::read_dir(self.0.path())? {
            let path = file?.path();
            if starts_with(&path, &name) && path.is_file() {
                std::fs::remove_file(path)?;
            }
        }
        Ok(true)
    }
}

fn starts_with(path: &Path, name: &str) -> bool {
    path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_broker() -> anyhow::Result<()> {
    broker::suite(&Files(tempfile::tempdir()?)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_backend() -> anyhow::Result<()> {
    let files = Files(tempfile::tempdir()?);
    backend::suite(async |place| Ok(Arc::new(embedded(files.path(&place))?) as Arc<dyn ResultBackend>)).await
}

/// A key prefix for each place, in one database.
struct Database {
    number: u32,
    /// Place of the results. None: the same database.
    results: Option<u32>,
}

impl Database {
    fn new() -> Self {
        Self { number: RedisServer::fresh_database(), results: None }
    }

    async fn redis(&self, role: Role, place: &Place) -> anyhow::Result<Redis> {
        let server = RedisServer::shared();
        let number = if role == Role::Backend { self.results.unwrap_or(self.number) } else { self.number };
        let mut url = server.url(number);
        if let Some(port) = place.port {
            url = url.replace(&format!(":{}/", server.port()), &format!(":{port}/"));
        }
        let mut options = rwork_redis::Options::parse(&url, role)?;
        options.lease = place.lease;
        options.transport.global_keyprefix = format!("{}:", place.name);
        Ok(Redis::connect(options).await?)
    }
}

#[async_trait]
impl Ground for Database {
    async fn connect(&self, place: Place) -> anyhow::Result<Arc<dyn Broker>> {
        let broker = self.redis(Role::Broker, &place).await?;
        let results = self.redis(Role::Backend, &place).await?;
        Ok(Arc::new(broker.with_results(&results)))
    }

    async fn results(&self, place: Place) -> anyhow::Result<Option<Arc<dyn ResultBackend>>> {
        Ok(Some(Arc::new(self.redis(Role::Backend, &place).await?)))
    }

    fn server(&self) -> Option<u16> {
        Some(RedisServer::shared().port())
    }

    async fn lose_all(&self, _place: Place) -> anyhow::Result<bool> {
        let mut redis = RedisServer::shared().connect(self.number).await?;
        let () = cmd("FLUSHDB").query_async(&mut redis).await?;
        Ok(true)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_broker() -> anyhow::Result<()> {
    broker::suite(&Database::new()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_broker_with_results_in_another_database() -> anyhow::Result<()> {
    broker::suite(&Database { results: Some(RedisServer::fresh_database()), ..Database::new() }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_backend() -> anyhow::Result<()> {
    let database = Database::new();
    backend::suite(async |place| {
        Ok(Arc::new(database.redis(Role::Backend, &place).await?) as Arc<dyn ResultBackend>)
    })
    .await
}

/// A virtual host for each place, with queues of one type.
struct Hosts {
    suite: &'static str,
    queue_type: QueueType,
}

#[async_trait]
impl Ground for Hosts {
    async fn connect(&self, place: Place) -> anyhow::Result<Arc<dyn Broker>> {
        let server = RabbitServer::shared();
        let vhost = format!("{}-{}", self.suite, place.name);
        // A second connection to the same place finds it there.
        server.add_vhost(&vhost).await?;
        let mut options = rwork_amqp::Options::parse(&server.url(&vhost), rwork_amqp::Role::Broker)?;
        (options.default_queue_type, options.missing_queue_type) = (self.queue_type, self.queue_type);
        Ok(Arc::new(Amqp::connect(options).await?))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn amqp_classic() -> anyhow::Result<()> {
    broker::suite(&Hosts { suite: "conformance-classic", queue_type: QueueType::Classic }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn amqp_quorum() -> anyhow::Result<()> {
    broker::suite(&Hosts { suite: "conformance-quorum", queue_type: QueueType::Quorum }).await
}
