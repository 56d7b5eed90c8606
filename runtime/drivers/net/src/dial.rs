//! A socket to one of a host's addresses, with keep-alives.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rwork_protocol::service::RedactedUrl;
use tokio::net::{TcpStream, lookup_host};

use crate::Failure;
use crate::race::race;

/// A line that has been quiet so long is tried; load balancers drop it after minutes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;

/// The head start of an address before the next one: RFC 8305's.
const TURN: Duration = Duration::from_millis(250);

/// Connects to a host's addresses side by side, and takes the first that answers. Has no time limit of its own.
///
/// # Errors
/// When the host has no address, or the first one's refusal.
///
/// # Cancel safety
/// Cancel safe: nothing has been sent.
pub async fn dial(host: &str, port: u16, url: &RedactedUrl) -> Result<TcpStream, Failure> {
    let nobody = || {
        let hint = "check the host name, and the DNS server";
        Failure::unreachable(url, format!("found no address of `{host}`"), hint)
    };
    let addresses: Vec<SocketAddr> = lookup_host((host, port)).await.map_err(|_| nobody())?.collect();
    let connect = async |address| TcpStream::connect(address).await.map_err(|error| no_socket(url, &error));
    let won = race(alternating(addresses), TURN, connect).await;
    let stream = won.map_err(|failure| failure.unwrap_or_else(nobody))?.value;
    // Without these a lost peer is noticed later, by our own clocks; nothing else depends on them.
    if let Err(error) = tune(&stream) {
        tracing::debug!(%url, %error, "failed to set socket options");
    }
    Ok(stream)
}

/// One address of each family in turn, in the resolver's order: a network that loses one family's packets costs one turn.
fn alternating(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_ipv6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (ours, others): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_ipv6);
    let mut others = others.into_iter();
    let mut all: Vec<_> =
        ours.into_iter().flat_map(|address| [Some(address), others.next()]).flatten().collect();
    all.extend(others);
    all
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let read = |text: &str| text.split_whitespace().map(|address| address.parse().unwrap()).collect();
        for (found, order) in [
            ("[::1]:1 [::2]:1 [::3]:1 1.1.1.1:1", "[::1]:1 1.1.1.1:1 [::2]:1 [::3]:1"),
            ("1.1.1.1:1 [::1]:1 [::2]:1 [::3]:1", "1.1.1.1:1 [::1]:1 [::2]:1 [::3]:1"),
            ("1.1.1.1:1 1.1.1.2:1", "1.1.1.1:1 1.1.1.2:1"),
            ("", ""),
        ] {
            let order: Vec<SocketAddr> = read(order);
            assert_eq!(alternating(read(found)), order);
        }
    }
}
