//! One suite per trait, for every driver: each calls it in one line, and what brokers do differently is read from their
//! `Capabilities`.
//!
//! A case gets a place of its own (a file, a key prefix, a virtual host). It waits for events: a consumer's death is seen
//! by the redelivery that follows it, never by sleeping.

pub mod backend;
pub mod broker;

use std::time::Duration;

use anyhow::Context as _;

/// Where a case wants to be connected. Two connections to the same `name` share everything, as two processes would.
#[derive(Clone, Debug)]
pub struct Place {
    /// Unique within the suite, `[a-z-]`.
    pub name: &'static str,
    /// The lease to be used by a broker that has leases.
    pub lease: Duration,
    /// Port on loopback to be used instead of the server's own: a proxy's.
    pub port: Option<u16>,
}

impl Place {
    /// A place with a lease too long to end in a case.
    pub fn new(name: &'static str) -> Self {
        const LONG: Duration = Duration::from_secs(10);
        Self { name, lease: LONG, port: None }
    }
}

/// A case that hangs fails with its name instead of stopping the run. No case needs more than a few seconds.
const HANG: Duration = Duration::from_secs(60);

async fn case(name: &str, run: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    match tokio::time::timeout(HANG, run).await {
        Ok(outcome) => outcome.with_context(|| format!("conformance case `{name}`")),
        Err(_) => anyhow::bail!("conformance case `{name}` hangs"),
    }
}
