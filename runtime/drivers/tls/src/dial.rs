//! A socket to a host, with keep-alives.

use std::io;
use std::time::Duration;

use rwork_protocol::service::RedactedUrl;
use tokio::net::{TcpStream, lookup_host};

use crate::Failure;

/// A line that has been quiet so long is tried; load balancers drop it after minutes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;

/// Connects to the first address of a host that takes us. Has no time limit of its own.
///
/// # Errors
/// When the host has no address, or the last one's refusal.
///
/// # Cancel safety
/// Cancel safe: nothing has been sent.
pub async fn dial(host: &str, port: u16, url: &RedactedUrl) -> Result<TcpStream, Failure> {
    let nobody = || {
        Failure::unreachable(
            url,
            format!("found no address of `{host}`"),
            "check the host name, and the DNS server",
        )
    };
    let addresses = lookup_host((host, port)).await.map_err(|_| nobody())?;
    let mut told = nobody();
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Without these a lost peer is noticed later, by our own clocks; nothing else depends on them.
                if let Err(error) = tune(&stream) {
                    tracing::debug!(%url, %error, "failed to set socket options");
                }
                return Ok(stream);
            }
            Err(error) => told = no_socket(url, &error),
        }
    }
    Err(told)
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    Ok(())
}

/// Why there is no socket.
pub fn no_socket(url: &RedactedUrl, error: &io::Error) -> Failure {
    let (what, hint) = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            ("connection refused", "start the server there, or check host and port")
        }
        io::ErrorKind::NotFound => {
            ("there is no such socket", "start the server, or check its `unixsocket` setting")
        }
        io::ErrorKind::PermissionDenied => {
            return Failure::refused(
                url,
                "no permission to open its socket",
                "check `unixsocketperm` of that server",
            );
        }
        _ => return Failure::unreachable(url, error.to_string(), ""),
    };
    Failure::unreachable(url, what, hint)
}
