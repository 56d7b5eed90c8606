//! The client against real sockets on the loopback interface, and the harness that these tests share.

mod allow_list;
mod bounds;
mod connections;
mod exchanges;
mod refusals;
mod tls;

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use wasmtime_wasi_http::{Error, WasiBody};

use super::*;

/// Answers each look-up with the next of its answers; the last one stays.
#[derive(Debug, Default)]
struct Answers {
    next: Mutex<VecDeque<Vec<IpAddr>>>,
    asked: AtomicUsize,
}

impl Answers {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let parse = |answer: &&[&str]| answer.iter().map(|address| address.parse().unwrap()).collect();
        Arc::new(Self { next: Mutex::new(answers.iter().map(parse).collect()), asked: AtomicUsize::new(0) })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Resolve for Answers {
    async fn resolve(&self, _name: &str) -> io::Result<Vec<IpAddr>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut next = self.next.lock().unwrap();
        match next.len() {
            0 => Err(io::Error::other("no such name")),
            1 => Ok(next[0].clone()),
            _ => Ok(next.pop_front().unwrap()),
        }
    }
}

/// A listener whose connections are each given to a function; all end with it.
struct Server {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    _accepting: JoinSet<()>,
}

impl Server {
    /// Each connection goes to `serve` as it is.
    async fn raw<F, T>(serve: F) -> Self
    where
        F: Fn(TcpStream) -> T + Send + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let mut accepting = JoinSet::new();
        let count = Arc::clone(&accepted);
        accepting.spawn(async move {
            let mut serving = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                serving.spawn(serve(stream));
            }
        });
        Self { address, accepted, _accepting: accepting }
    }

    /// Each request goes to `answer`.
    async fn http<F, T>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> T + Clone + Send + 'static,
        T: Future<Output = Response<WasiBody>> + Send + 'static,
    {
        Self::raw(move |stream| serve_http(stream, answer.clone())).await
    }

    /// Every request is answered with `hello`.
    async fn hello() -> Self {
        Self::http(|_| async { Response::new(full("hello")) }).await
    }

    fn port(&self) -> u16 {
        self.address.port()
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    fn origin(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn serve_http<S, F, T>(stream: S, answer: F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> T + Send + 'static,
    T: Future<Output = Response<WasiBody>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let response = answer(request);
        async move { Ok::<_, std::convert::Infallible>(response.await) }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// Reads until the end of a request's head.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Reads until the other side is gone.
async fn read_to_the_end(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
}

fn full(text: impl Into<Bytes>) -> WasiBody {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

fn empty() -> WasiBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn get(uri: &str) -> Request<WasiBody> {
    Request::get(uri).body(empty()).unwrap()
}

fn client(limits: HttpLimits) -> Egress {
    Egress::new(Handle::current(), limits, Roots::default())
}

fn client_with(resolver: &Arc<Answers>) -> Egress {
    Egress::with_resolver(
        Handle::current(),
        HttpLimits::default(),
        Roots::default(),
        Arc::clone(resolver) as _,
    )
}

fn scope<T: AsRef<str>>(egress: &Egress, entries: &[T]) -> Scope {
    egress.scope("web", Arc::new(AllowList::parse(entries).unwrap()), None)
}

async fn text(response: Response<WasiBody>) -> Result<String, Error> {
    let body = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

/// Runs a whole request and gives what the server said.
async fn fetch(egress: &Egress, scope: &Scope, uri: &str) -> Result<String, EgressError> {
    let response = egress.request(get(uri), None, scope).await?;
    Ok(text(response).await.unwrap())
}
