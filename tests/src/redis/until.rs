//! Waiting until something holds of a database: looked at whenever a key changes, never by the clock.

use anyhow::Context as _;
use futures_util::{FutureExt as _, StreamExt as _};
use redis::aio::MultiplexedConnection;

use super::RedisServer;

impl RedisServer {
    /// Waits until this holds of a database. It is looked at now, and again whenever a key of the database changes.
    ///
    /// # Errors
    /// Those of the look, and that the server ended.
    pub async fn until(
        &self,
        database: u32,
        mut holds: impl AsyncFnMut(&mut MultiplexedConnection) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let mut changes = self.client(database)?.get_async_pubsub().await?;
        changes.psubscribe(format!("__keyspace@{database}__:*")).await?;
        let mut changes = changes.into_on_message();
        let mut redis = self.connect(database).await?;
        while !holds(&mut redis).await? {
            changes.next().await.context("the server ended")?;
            // Many keys change at once; one look is enough for those that are told already.
            while let Some(Some(_)) = changes.next().now_or_never() {}
        }
        Ok(())
    }
}
