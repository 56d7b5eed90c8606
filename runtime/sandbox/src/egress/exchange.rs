//! One request and its response: check → look up → connect or reuse → send → head of the response.
//!
//! Redirects are handed to the guest like any other response; if it follows one, that is a new request with its own
//! checks. Nothing is sent twice, except a request of which a reused connection took not one byte.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryFutureExt;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::Body;
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use wasmtime_wasi_http::{DEFAULT_FORBIDDEN_HEADERS, RequestOptions, WasiBody};

use super::body::{BodyLimits, Lease, RequestBody, ResponseBody, Upload};
use super::client::{Inner, Scope};
use super::destination::{Destination, Scheme};
use super::error::EgressError;
use super::limits::HttpLimits;
use super::pool::{Connection, Key};

/// How long a kept connection may take to say that it is ready; it needs one turn of its task.
const REUSE_WAIT: Duration = Duration::from_millis(50);

/// Headers that a guest may neither set nor see: those that speak about the connection rather than the message, and
/// `host`, which follows from the checked destination.
pub fn is_forbidden_header(name: &HeaderName) -> bool {
    DEFAULT_FORBIDDEN_HEADERS.contains(name) || name == http::header::TE
}

/// The waits of one request: the shortest of the worker's limit, the guest's option and the invocation's end.
#[derive(Clone, Copy, Debug)]
struct Waits {
    connect: Duration,
    first_byte: Duration,
    between_bytes: Duration,
    deadline: Option<Instant>,
}

impl Waits {
    fn new(limits: &HttpLimits, options: Option<RequestOptions>, deadline: Option<Instant>) -> Self {
        let options = options.unwrap_or_default();
        let shorter = |own: Duration, asked: Option<Duration>| asked.map_or(own, |asked| asked.min(own));
        Self {
            connect: shorter(limits.connect_timeout, options.connect_timeout),
            first_byte: shorter(limits.first_byte_timeout, options.first_byte_timeout),
            between_bytes: shorter(limits.between_bytes_timeout, options.between_bytes_timeout),
            deadline,
        }
    }

    fn until(&self, wait: Duration) -> Instant {
        let until = Instant::now() + wait;
        self.deadline.map_or(until, |deadline| until.min(deadline))
    }

    fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }
}

impl Inner {
    /// Runs on the I/O runtime; dropping the future, or the body it returns, closes the connection.
    pub(super) async fn exchange(
        &self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        scope: &Scope,
    ) -> Result<Response<ResponseBody>, EgressError> {
        let destination =
            Destination::of(request.uri()).map_err(|reason| EgressError::InvalidUri { reason })?;
        if !scope.allow.matches(&destination) {
            return Err(EgressError::NotGranted { destination });
        }
        let slot = scope.slot()?;
        let waits = Waits::new(&self.limits, options, scope.deadline);
        let reusable = !authenticates_the_connection(request.headers());
        let (request, upload) = self.prepare(request, &destination)?;
        let until = waits.until(waits.connect);
        let addresses = self.lookup.addresses(&destination, &scope.allow, until).await?;
        let keys: Vec<Key> =
            addresses.into_iter().map(|address| Key { destination: destination.clone(), address }).collect();
        let (connection, response) = self.round_trip(&keys, request, &upload, &waits).await?;
        let lease = Lease { connection, upload, reusable, pool: Arc::clone(&self.pool), slot };
        self.receive(response, lease, &waits)
    }

    /// The request as it goes over the wire: target in origin form, our own `Host`, nothing about the connection.
    fn prepare(
        &self,
        request: Request<WasiBody>,
        destination: &Destination,
    ) -> Result<(Request<RequestBody>, Arc<Upload>), EgressError> {
        let (mut parts, body) = request.into_parts();
        if parts.method == Method::CONNECT {
            return Err(EgressError::MethodRefused);
        }
        parts.uri = target(&parts.uri)?;
        parts.headers = pass_on(parts.headers);
        let host = HeaderValue::try_from(destination.authority())
            .map_err(|_| EgressError::InvalidUri { reason: "the host can't be written as a header" })?;
        parts.headers.insert(HOST, host);
        parts.extensions.clear();
        let (bytes, max) = (head_bytes(&parts.uri, &parts.headers), self.limits.request_head_bytes_max);
        if bytes > max {
            return Err(EgressError::RequestHeadTooLarge { bytes, max });
        }
        let max = self.limits.request_body_bytes_max;
        let announced = content_length(&parts.headers).or(body.size_hint().exact());
        if announced.is_some_and(|bytes| bytes > max) {
            return Err(EgressError::RequestBodyTooLarge { max });
        }
        let (body, upload) = RequestBody::new(body, max);
        Ok((Request::from_parts(parts, body), upload))
    }

    async fn round_trip(
        &self,
        keys: &[Key],
        mut request: Request<RequestBody>,
        upload: &Upload,
        waits: &Waits,
    ) -> Result<(Connection, Response<Incoming>), EgressError> {
        while let Some(mut connection) = keys.iter().find_map(|key| self.pool.take(key)) {
            if !matches!(timeout(REUSE_WAIT, connection.sender.ready()).await, Ok(Ok(()))) {
                continue;
            }
            match self.send(&mut connection, request, upload, waits).await {
                Ok(response) => return Ok((connection, response)),
                Err(Unanswered::NotSent(again)) => request = *again,
                Err(Unanswered::Failed(error)) => return Err(error),
            }
        }
        let mut connection = self.connect(keys, waits.until(waits.connect)).await?;
        match self.send(&mut connection, request, upload, waits).await {
            Ok(response) => Ok((connection, response)),
            Err(Unanswered::NotSent(_)) => Err(EgressError::Closed),
            Err(Unanswered::Failed(error)) => Err(error),
        }
    }

    /// Tries the addresses in turn; each gets an equal part of the time that is left.
    async fn connect(&self, keys: &[Key], until: Instant) -> Result<Connection, EgressError> {
        let permit = self.pool.permit(until).await?;
        let mut failed = EgressError::ConnectTimeout;
        let mut tcp = None;
        for (tried, key) in keys.iter().enumerate() {
            let untried = u32::try_from(keys.len() - tried).unwrap_or(1);
            let part = until.saturating_duration_since(Instant::now()) / untried;
            match timeout(part, TcpStream::connect(key.socket())).await {
                Ok(Ok(stream)) => {
                    tcp = Some((key, stream));
                    break;
                }
                Ok(Err(source)) => {
                    failed = EgressError::Connect { destination: key.destination.clone(), source }
                }
                Err(_) => failed = EgressError::ConnectTimeout,
            }
        }
        let (key, stream) = tcp.ok_or(failed)?;
        // Small requests must not wait for an acknowledgement; a system that can't do this is merely slower.
        let _ = stream.set_nodelay(true);
        match key.destination.scheme {
            Scheme::Http => Connection::start(key.clone(), stream, permit, &self.limits).await,
            Scheme::Https => {
                let handshake = timeout_at(until, self.tls.connect(&key.destination, stream)).await;
                let stream = handshake.unwrap_or(Err(EgressError::ConnectTimeout))?;
                Connection::start(key.clone(), stream, permit, &self.limits).await
            }
        }
    }

    async fn send(
        &self,
        connection: &mut Connection,
        request: Request<RequestBody>,
        upload: &Upload,
        waits: &Waits,
    ) -> Result<Response<Incoming>, Unanswered> {
        let response =
            connection.sender.try_send_request(request).map_err(|mut error| match error.take_message() {
                Some(request) => Unanswered::NotSent(Box::new(request)),
                None => Unanswered::Failed(self.unanswered(error.into_error(), upload)),
            });
        let mut response = pin!(response);
        loop {
            let steps = upload.steps();
            if let Ok(answer) = timeout_at(waits.until(waits.first_byte), response.as_mut()).await {
                return answer;
            }
            // The server's time to answer starts when it has the whole request.
            let sending = upload.steps() != steps || (!upload.finished() && upload.waits_for_guest());
            if waits.is_over() || !sending {
                return Err(Unanswered::Failed(EgressError::FirstByteTimeout));
            }
        }
    }

    fn unanswered(&self, error: hyper::Error, upload: &Upload) -> EgressError {
        if let Some(fault) = upload.fault(self.limits.request_body_bytes_max) {
            return fault;
        }
        if error.is_parse_too_large() {
            EgressError::ResponseHeadTooLarge { max: self.limits.response_head_bytes_max }
        } else if error.is_parse() {
            EgressError::Protocol(error)
        } else if error.is_body_write_aborted() || error.is_user() {
            EgressError::RequestAborted
        } else {
            EgressError::Closed
        }
    }

    fn receive(
        &self,
        response: Response<Incoming>,
        lease: Lease,
        waits: &Waits,
    ) -> Result<Response<ResponseBody>, EgressError> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(EgressError::Upgraded);
        }
        let bytes_max = self.limits.response_body_bytes_max;
        // A response to HEAD announces a length and has no body.
        let announced = response.body().size_hint().exact();
        if announced.is_some_and(|bytes| bytes > bytes_max) {
            return Err(EgressError::ResponseBodyTooLarge { max: bytes_max });
        }
        let limits = BodyLimits {
            bytes_max,
            request_bytes_max: self.limits.request_body_bytes_max,
            between_bytes: waits.between_bytes,
            deadline: waits.deadline,
        };
        Ok(response.map(|incoming| ResponseBody::new(incoming, limits, lease)))
    }
}

/// Why a connection gave no response.
enum Unanswered {
    /// It was closed before it took anything of the request.
    NotSent(Box<Request<RequestBody>>),
    Failed(EgressError),
}

fn target(uri: &Uri) -> Result<Uri, EgressError> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let target = if path.starts_with('/') {
        path.parse()
    } else if path.is_empty() || path.starts_with('?') {
        format!("/{path}").parse()
    } else {
        return Err(EgressError::InvalidUri { reason: "expected a path that starts with `/`" });
    };
    target.map_err(|_| EgressError::InvalidUri { reason: "the path can't be read" })
}

fn pass_on(headers: HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::with_capacity(headers.len());
    let mut name = None;
    // A name comes with the first of its values only.
    for (next, value) in headers {
        name = next.or(name);
        if let Some(name) = name.as_ref().filter(|name| !is_forbidden_header(name)) {
            kept.append(name.clone(), value);
        }
    }
    kept
}

fn head_bytes(target: &Uri, headers: &HeaderMap) -> usize {
    let line = target.path_and_query().map_or(0, |path| path.as_str().len());
    let fields = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    line + fields.sum::<usize>()
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// NTLM and Negotiate log the *connection* in, so that whoever used it next would be that user.
fn authenticates_the_connection(headers: &HeaderMap) -> bool {
    headers.get_all(AUTHORIZATION).iter().any(|value| {
        let scheme = value.as_bytes().split(|byte| *byte == b' ').next().unwrap_or_default();
        scheme.eq_ignore_ascii_case(b"ntlm") || scheme.eq_ignore_ascii_case(b"negotiate")
    })
}
