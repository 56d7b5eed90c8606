//! Results that are kept on the broker's own server: commits carry their records.

use std::sync::Arc;

use crate::handle::{Inner, Redis};
use crate::url::Servers;

/// Where records go that ride in commits.
#[derive(Debug)]
pub(crate) struct Results {
    /// The result backend's handle.
    pub(crate) inner: Arc<Inner>,
    /// Database of the records and of the messages; `None` where both are in one.
    pub(crate) databases: Option<(u32, u32)>,
}

impl Results {
    pub(crate) fn new(broker: &Redis, results: &Redis) -> Self {
        let databases = (database(&results.inner), database(&broker.inner));
        let databases = (databases.0 != databases.1).then_some(databases);
        Self { inner: Arc::clone(&results.inner), databases }
    }
}

/// The database that a handle's connections enter. Options were read before: they can be read again.
fn database(inner: &Inner) -> u32 {
    match inner.options.servers() {
        Ok(Servers::Direct(endpoints)) => endpoints.first().map_or(0, |endpoint| endpoint.login.db),
        Ok(Servers::Sentinel(_, login)) => login.db,
        Err(_) => 0,
    }
}
