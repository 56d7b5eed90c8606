//! A line to a server that loses answers when it is told to, or is cut.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Passes everything on until something else is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    state: Arc<Mutex<State>>,
    /// Changed by a cut.
    cuts: watch::Sender<u32>,
}

#[derive(Debug, Default)]
struct State {
    /// A request with these bytes is the last that is answered on its line: not even it is.
    needle: Option<Vec<u8>>,
    /// Lines whose answers are lost.
    muted: u32,
}

impl Proxy {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let here = listener.local_addr().unwrap().port();
        let proxy = Self { port: here, state: Arc::default(), cuts: watch::Sender::new(0) };
        let accepting = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", port)).await;
                if let Ok(server) = server {
                    accepting.line(client, server);
                }
            }
        });
        proxy
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Loses the answer to the next request with these bytes, and all after it on its line.
    pub(crate) fn lose_answer_to(&self, needle: &[u8]) {
        self.state.lock().unwrap().needle = Some(needle.to_vec());
    }

    /// Whether an answer was lost.
    pub(crate) fn has_lost(&self) -> bool {
        self.state.lock().unwrap().muted > 0
    }

    /// Ends all lines.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
        *self.state.lock().unwrap() = State::default();
    }

    fn line(&self, client: TcpStream, server: TcpStream) {
        let ((from, to_client), (from_server, to)) = (client.into_split(), server.into_split());
        let is_muted = watch::Sender::new(false);
        let told = is_muted.subscribe();
        let (one, other) = (self.clone(), self.clone());
        tokio::spawn(async move { one.until_cut(one.requests(from, to, is_muted)).await });
        tokio::spawn(async move { other.until_cut(answers(from_server, to_client, told)).await });
    }

    async fn until_cut(&self, line: impl Future<Output = ()>) {
        let mut cuts = self.cuts.subscribe();
        tokio::select! {
            () = line => {}
            _ = cuts.changed() => {}
        }
    }

    async fn requests(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, is_muted: watch::Sender<bool>) {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from.read(&mut bytes).await {
            {
                let mut state = self.state.lock().unwrap();
                let is_it =
                    |needle: &Vec<u8>| bytes[..count].windows(needle.len()).any(|window| window == needle);
                if state.needle.as_ref().is_some_and(is_it) {
                    state.needle = None;
                    state.muted += 1;
                    is_muted.send_replace(true);
                }
            }
            if to.write_all(&bytes[..count]).await.is_err() {
                break;
            }
        }
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, is_muted: watch::Receiver<bool>) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if !*is_muted.borrow() && to.write_all(&bytes[..count]).await.is_err() {
            break;
        }
    }
}
