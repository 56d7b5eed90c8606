//! Outbound HTTP of guests: the operator's allow-list and the one client behind `wasi:http`.
//!
//! In order: [`Destination`] reads where a request goes, [`AllowList`] says whether it may, one look-up names the
//! addresses, each is judged, and the connection is made to a judged address and no other. Nothing here follows a
//! redirect, retries a request that was sent, uses a proxy or reads configuration.
//!
//! The sandbox calls it from its `WasiHttpHooks`:
//!
//! ```text
//! fn send_request(&mut self, request: Request<WasiBody>, options: Option<RequestOptions>, _: …) -> SendFuture {
//!     self.egress.send(request, options, &self.scope)
//! }
//! fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
//!     Arc::new(egress::is_forbidden_header)
//! }
//! fn p2_outgoing_body_chunk_size(&mut self) -> usize {
//!     self.egress.limits().request_chunk_bytes_max
//! }
//! ```

mod address;
mod allow;
mod body;
mod client;
mod destination;
mod error;
mod exchange;
mod limits;
mod pool;
mod resolve;
#[cfg(test)]
mod tests;
mod tls;

pub use address::AddressClass;
pub use allow::{AllowList, HttpGrant, HttpGrantError};
pub use client::{Answer, Egress, Scope, SendFuture};
pub use destination::{Destination, HostName, Scheme};
pub use error::EgressError;
pub use exchange::is_forbidden_header;
pub use limits::HttpLimits;
pub use resolve::{Resolve, SystemResolver};
pub use tls::Roots;
