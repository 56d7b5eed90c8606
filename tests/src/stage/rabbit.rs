//! The virtual host of a stage: where its messages are.

use std::sync::Arc;

use serde_json::Value;

use crate::rabbitmq::{Queue, RabbitServer};

/// A virtual host of one server.
#[derive(Clone, Debug)]
pub struct Rabbit {
    /// None: the shared one.
    server: Option<Arc<RabbitServer>>,
    vhost: String,
}

impl Rabbit {
    /// A new one on the shared server.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn shared() -> anyhow::Result<Self> {
        Ok(Self { server: None, vhost: RabbitServer::shared().fresh_vhost().await? })
    }

    /// A new one on this server.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn on(server: &Arc<RabbitServer>) -> anyhow::Result<Self> {
        Ok(Self { server: Some(Arc::clone(server)), vhost: server.fresh_vhost().await? })
    }

    /// The server.
    pub fn server(&self) -> &RabbitServer {
        self.server.as_deref().unwrap_or_else(|| RabbitServer::shared())
    }

    /// Its name.
    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    /// Its URL.
    pub fn url(&self) -> String {
        self.server().url(&self.vhost)
    }

    /// Its queues.
    ///
    /// # Errors
    /// When the server does not run.
    pub async fn queues(&self) -> anyhow::Result<Vec<Queue>> {
        self.server().queues(&self.vhost).await
    }

    /// One of its queues, if it is there.
    ///
    /// # Errors
    /// When the server does not run.
    pub async fn queue(&self, name: &str) -> anyhow::Result<Option<Queue>> {
        self.server().queue(&self.vhost, name).await
    }

    /// Its channels: see [`RabbitServer::channels`].
    ///
    /// # Errors
    /// When the server does not run.
    pub async fn channels(&self) -> anyhow::Result<Vec<Value>> {
        self.server().channels(&self.vhost).await
    }

    /// Waits until this holds of its queues.
    ///
    /// # Errors
    /// When the server does not run.
    pub async fn until(&self, holds: impl Fn(&[Queue]) -> bool) -> anyhow::Result<()> {
        self.server().until(&self.vhost, holds).await
    }

    /// Waits until this holds of a queue that is there.
    ///
    /// # Errors
    /// When the server does not run.
    pub async fn until_queue(&self, name: &str, holds: impl Fn(&Queue) -> bool) -> anyhow::Result<()> {
        self.until(|queues| queues.iter().any(|queue| queue.name == name && holds(queue))).await
    }
}
