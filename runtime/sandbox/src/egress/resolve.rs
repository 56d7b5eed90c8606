//! Names to addresses: the one look-up of a request.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::allow::AllowList;
use super::destination::{Destination, HostName};
use super::error::EgressError;
use super::limits::HttpLimits;

/// How names become addresses; the system's resolver unless a test brings its own.
#[async_trait]
pub trait Resolve: fmt::Debug + Send + Sync + 'static {
    /// All addresses of a name, best first.
    ///
    /// # Errors
    /// As the resolver says.
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's resolver (`getaddrinfo`).
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// Looks up within bounds and keeps what may be connected to.
#[derive(Debug)]
pub(super) struct Lookup {
    resolver: Arc<dyn Resolve>,
    slots: Arc<Semaphore>,
    addresses_max: usize,
}

impl Lookup {
    pub(super) fn new(resolver: Arc<dyn Resolve>, limits: &HttpLimits) -> Self {
        let slots = Arc::new(Semaphore::new(limits.lookups_max));
        Self { resolver, slots, addresses_max: limits.addresses_tried_max }
    }

    /// The addresses of a granted destination that may be connected to, at least one.
    pub(super) async fn addresses(
        &self,
        destination: &Destination,
        allow: &AllowList,
        deadline: Instant,
    ) -> Result<Vec<IpAddr>, EgressError> {
        let found = match &destination.host {
            HostName::Address(address) => vec![*address],
            HostName::Name(name) => {
                timeout_at(deadline, self.look_up(name)).await.unwrap_or(Err(EgressError::ResolveTimeout))?
            }
        };
        let mut refused = None;
        let mut kept = Vec::new();
        for address in found.into_iter().map(|address| address.to_canonical()) {
            match allow.refuses(destination, address) {
                None if kept.contains(&address) => {}
                None => kept.push(address),
                Some(class) => refused = refused.or(Some((address, class))),
            }
        }
        kept.truncate(self.addresses_max);
        match refused {
            Some((address, class)) if kept.is_empty() => {
                Err(EgressError::AddressRefused { destination: destination.clone(), address, class })
            }
            _ if kept.is_empty() => Err(no_address(destination)),
            _ => Ok(kept),
        }
    }

    async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, EgressError> {
        let failed = |source| EgressError::Resolve { host: name.to_owned(), source };
        let slot = Arc::clone(&self.slots)
            .acquire_owned()
            .await
            .map_err(|closed| failed(io::Error::other(closed)))?;
        let (resolver, owned) = (Arc::clone(&self.resolver), name.to_owned());
        // `getaddrinfo` can't be cancelled. Detached, it keeps its slot until its thread is free again, even when the
        // request is given up; the number of slots bounds these tasks.
        let running = tokio::spawn(async move {
            let _slot = slot;
            resolver.resolve(&owned).await
        });
        running.await.unwrap_or_else(|lost| Err(io::Error::other(lost))).map_err(failed)
    }
}

fn no_address(destination: &Destination) -> EgressError {
    let source = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    EgressError::Resolve { host: destination.host.to_string(), source }
}
