//! The bounds of outbound HTTP: what one request, one invocation and the whole worker may take.

use std::time::Duration;

/// Every bound of outbound HTTP. A guest can ask for shorter times than these, never for longer ones, and no wait
/// outlasts the invocation's own hard limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Look-up, and again TCP with TLS, may each take this long. Default 10 s: three lost SYNs (1 + 2 + 4 s) survive.
    pub connect_timeout: Duration,
    /// From the last byte of the request to the head of the response. Default 60 s, as common reverse proxies have it.
    pub first_byte_timeout: Duration,
    /// Silence allowed inside a response body while the guest waits for it. Default 30 s.
    pub between_bytes_timeout: Duration,
    /// Target and headers of a request, in bytes. Default 64 KiB: servers refuse 8 to 64 KiB anyway.
    pub request_head_bytes_max: usize,
    /// Body of a request, in bytes. Default 64 MiB.
    pub request_body_bytes_max: u64,
    /// What the guest can hand over in one write, in bytes; up to three such chunks wait in the host. Default 64 KiB.
    pub request_chunk_bytes_max: usize,
    /// Status line and headers of a response, in bytes, at least 8 KiB; also what one connection buffers while the
    /// guest doesn't read. Default 64 KiB. The parser itself takes 100 headers at most.
    pub response_head_bytes_max: usize,
    /// Body of a response as it crosses the wire, in bytes. Default 64 MiB: four results of the largest size.
    pub response_body_bytes_max: u64,
    /// Requests one invocation may have open, bodies that are still being read included. Default 16.
    pub requests_per_invocation_max: usize,
    /// Connections of the whole worker, idle ones included. Default 512: half of the usual limit of 1024 open files,
    /// so that guests can never take the descriptors of the broker.
    pub connections_max: usize,
    /// Idle connections kept per scheme, host, port and address. Default 8.
    pub idle_per_host_max: usize,
    /// Idle connections kept in all. Default 64.
    pub idle_max: usize,
    /// How long a connection is kept idle, within a factor of two. Default 15 s: servers commonly close after 60 s
    /// or more, some load balancers after 30 s.
    pub idle_timeout: Duration,
    /// Addresses of one name that are tried in turn, sharing the connect timeout. Default 4.
    pub addresses_tried_max: usize,
    /// Look-ups of the whole worker at a time. Default 32: each occupies a thread, and one that the caller gave up
    /// goes on until the system's resolver answers.
    pub lookups_max: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            first_byte_timeout: Duration::from_secs(60),
            between_bytes_timeout: Duration::from_secs(30),
            request_head_bytes_max: 64 << 10,
            request_body_bytes_max: 64 << 20,
            request_chunk_bytes_max: 64 << 10,
            response_head_bytes_max: 64 << 10,
            response_body_bytes_max: 64 << 20,
            requests_per_invocation_max: 16,
            connections_max: 512,
            idle_per_host_max: 8,
            idle_max: 64,
            idle_timeout: Duration::from_secs(15),
            addresses_tried_max: 4,
            lookups_max: 32,
        }
    }
}
