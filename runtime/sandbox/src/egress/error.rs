//! Why a request did not come through, and how each reason reaches the guest.

use std::io;
use std::net::IpAddr;

use wasmtime_wasi_http::p2::bindings::http::types::{DnsErrorPayload, ErrorCode, TlsAlertReceivedPayload};

use super::address::AddressClass;
use super::destination::Destination;

/// A request that failed, or a response body that was cut.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EgressError {
    /// No entry of the allow-list names the destination.
    #[error("`{destination}` is not granted")]
    NotGranted {
        /// Where the guest wanted to go.
        destination: Destination,
    },
    /// The name is granted, every address behind it is off limits.
    #[error("`{destination}` is at `{address}`, a {class} address that no grant names")]
    AddressRefused {
        /// Where the guest wanted to go.
        destination: Destination,
        /// The first of the refused addresses.
        address: IpAddr,
        /// What it is.
        class: AddressClass,
    },
    /// Not a URI that can be sent.
    #[error("request URI refused: {reason}")]
    InvalidUri {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// `CONNECT` would make a tunnel out of the connection.
    #[error("method `CONNECT` is not supported")]
    MethodRefused,
    /// The invocation has as many requests open as it may.
    #[error("more than {max} requests open in one invocation")]
    TooManyRequests {
        /// [`HttpLimits::requests_per_invocation_max`](super::HttpLimits::requests_per_invocation_max).
        max: usize,
    },
    /// The worker has as many connections open as it may, and none came free in time.
    #[error("all {max} connections of this worker are in use")]
    TooManyConnections {
        /// [`HttpLimits::connections_max`](super::HttpLimits::connections_max).
        max: usize,
    },
    /// Target and headers together.
    #[error("request head of {bytes} bytes, {max} at most")]
    RequestHeadTooLarge {
        /// Its size.
        bytes: usize,
        /// [`HttpLimits::request_head_bytes_max`](super::HttpLimits::request_head_bytes_max).
        max: usize,
    },
    /// The guest sent, or announced, more than it may.
    #[error("request body of more than {max} bytes")]
    RequestBodyTooLarge {
        /// [`HttpLimits::request_body_bytes_max`](super::HttpLimits::request_body_bytes_max).
        max: u64,
    },
    /// The guest gave its own body up, or ended it short of its `content-length`.
    #[error("request body was not finished")]
    RequestAborted,
    /// Status line and headers, or their number.
    #[error("response head of more than {max} bytes or 100 headers")]
    ResponseHeadTooLarge {
        /// [`HttpLimits::response_head_bytes_max`](super::HttpLimits::response_head_bytes_max).
        max: usize,
    },
    /// The server sent, or announced, more than it may.
    #[error("response body of more than {max} bytes")]
    ResponseBodyTooLarge {
        /// [`HttpLimits::response_body_bytes_max`](super::HttpLimits::response_body_bytes_max).
        max: u64,
    },
    /// The look-up failed.
    #[error("failed to look up `{host}`")]
    Resolve {
        /// The name.
        host: String,
        /// As the resolver says.
        source: io::Error,
    },
    /// The look-up took too long.
    #[error("looking up the host took too long")]
    ResolveTimeout,
    /// No address took the connection.
    #[error("failed to connect to `{destination}`")]
    Connect {
        /// Where to.
        destination: Destination,
        /// What the last address said.
        source: io::Error,
    },
    /// TCP and TLS took too long.
    #[error("connecting took too long")]
    ConnectTimeout,
    /// This worker has no usable TLS set-up; the operator's to mend.
    #[error("TLS is not usable on this worker: {reason}")]
    TlsUnusable {
        /// What is missing.
        reason: String,
    },
    /// The server's certificate, or its TLS.
    #[error("TLS with `{destination}` failed")]
    Tls {
        /// Where to.
        destination: Destination,
        /// As rustls says.
        source: io::Error,
    },
    /// The head of the response did not come in time.
    #[error("no response in time")]
    FirstByteTimeout,
    /// The body stopped coming.
    #[error("the response body stopped coming")]
    BetweenBytesTimeout,
    /// The server closed the connection before the response.
    #[error("the connection closed before the response")]
    Closed,
    /// The server closed the connection inside the response.
    #[error("the response ended early")]
    Incomplete,
    /// The server changed protocols unasked.
    #[error("the server switched protocols")]
    Upgraded,
    /// What came is not HTTP/1.
    #[error("not a valid HTTP exchange")]
    Protocol(#[source] hyper::Error),
    /// A fault of this worker.
    #[error("the request was dropped by the worker: {reason}")]
    Dropped {
        /// What happened.
        reason: &'static str,
    },
}

impl EgressError {
    /// Whether the allow-list or the address check said no, which is the operator's to change.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::NotGranted { .. } | Self::AddressRefused { .. })
    }

    /// What to add to `rwork.toml` to let this request through, if that is what it takes.
    pub fn hint(&self, plugin: &str) -> Option<String> {
        let origin = match self {
            Self::NotGranted { destination } => destination.to_string(),
            Self::AddressRefused { destination, address, .. } => {
                Destination { host: super::destination::HostName::Address(*address), ..destination.clone() }
                    .to_string()
            }
            _ => return None,
        };
        Some(format!("add \"{origin}\" to `http` in [plugins.{plugin}.grants]"))
    }

    /// What `wasi:http` calls this.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotGranted { .. } => ErrorCode::HttpRequestDenied,
            Self::AddressRefused { .. } => ErrorCode::DestinationIpProhibited,
            Self::InvalidUri { .. } => ErrorCode::HttpRequestUriInvalid,
            Self::MethodRefused => ErrorCode::HttpRequestMethodInvalid,
            Self::TooManyRequests { .. } | Self::TooManyConnections { .. } => {
                ErrorCode::ConnectionLimitReached
            }
            Self::RequestHeadTooLarge { bytes, .. } => {
                ErrorCode::HttpRequestHeaderSectionSize(u32::try_from(*bytes).ok())
            }
            Self::RequestBodyTooLarge { max } => ErrorCode::HttpRequestBodySize(Some(*max)),
            Self::ResponseHeadTooLarge { max } => {
                ErrorCode::HttpResponseHeaderSectionSize(u32::try_from(*max).ok())
            }
            Self::ResponseBodyTooLarge { max } => ErrorCode::HttpResponseBodySize(Some(*max)),
            Self::Resolve { source, .. } => {
                ErrorCode::DnsError(DnsErrorPayload { rcode: Some(source.to_string()), info_code: None })
            }
            Self::ResolveTimeout => ErrorCode::DnsTimeout,
            Self::Connect { source, .. } => connect_code(source),
            Self::ConnectTimeout => ErrorCode::ConnectionTimeout,
            Self::TlsUnusable { .. } => ErrorCode::ConfigurationError,
            Self::Tls { source, .. } => tls_code(source),
            Self::FirstByteTimeout => ErrorCode::HttpResponseTimeout,
            Self::BetweenBytesTimeout => ErrorCode::ConnectionReadTimeout,
            Self::Closed => ErrorCode::ConnectionTerminated,
            Self::Incomplete => ErrorCode::HttpResponseIncomplete,
            Self::Upgraded => ErrorCode::HttpUpgradeFailed,
            Self::Protocol(_) | Self::RequestAborted => ErrorCode::HttpProtocolError,
            Self::Dropped { reason } => ErrorCode::InternalError(Some((*reason).to_owned())),
        }
    }
}

fn connect_code(source: &io::Error) -> ErrorCode {
    match source.kind() {
        io::ErrorKind::ConnectionRefused => ErrorCode::ConnectionRefused,
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
            ErrorCode::DestinationIpUnroutable
        }
        io::ErrorKind::TimedOut => ErrorCode::ConnectionTimeout,
        _ => ErrorCode::DestinationUnavailable,
    }
}

fn tls_code(source: &io::Error) -> ErrorCode {
    match source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_)) => ErrorCode::TlsCertificateError,
        Some(rustls::Error::AlertReceived(alert)) => ErrorCode::TlsAlertReceived(TlsAlertReceivedPayload {
            alert_id: Some(u8::from(*alert)),
            alert_message: Some(format!("{alert:?}")),
        }),
        _ => ErrorCode::TlsProtocolError,
    }
}

impl From<EgressError> for wasmtime_wasi_http::Error {
    fn from(error: EgressError) -> Self {
        error.code().into()
    }
}
