//! One request and its answer, through `wasi:http`.
//!
//! Every wait also waits for the host's wish to stop, so that the soft time limit ends it.

use rwork::{Context, TaskError};
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingResponse, Method, OutgoingRequest, RequestOptions, Scheme,
};
use wasip2::io::poll::{Pollable, poll};
use wasip2::io::streams::{InputStream, StreamError};

use crate::Answer;
use crate::address::Address;

/// What the plugin calls itself.
const USER_AGENT: &[u8] = concat!("rwork-web/", env!("CARGO_PKG_VERSION")).as_bytes();

/// How long a connection may take, in nanoseconds: 10 s.
const CONNECT_TIMEOUT_NS: u64 = 10_000_000_000;

/// How much is read at once: 64 KiB.
const READ_BYTES: u64 = 64 << 10;

/// Sends a GET and reads the answer, up to `max_bytes` of its body.
///
/// # Errors
///
/// `PermissionError` when the origin is not granted, `ConnectionError` and `TimeoutError` when it cannot be reached,
/// `SoftTimeLimitExceeded` when time is up.
pub(crate) fn get(ctx: &Context, address: &Address, max_bytes: usize) -> Result<Answer, TaskError> {
    let stop = ctx.stop_pollable();
    let response = send(ctx, &stop, address).map_err(|error| error.context(address))?;
    let headers = response.headers().entries();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let headers = headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), text(value))).collect();
    let (body, truncated) = read(ctx, &stop, &response, max_bytes).map_err(|error| error.context(address))?;
    Ok(Answer { status: response.status(), headers, body, truncated })
}

fn send(ctx: &Context, stop: &Pollable, address: &Address) -> Result<IncomingResponse, TaskError> {
    let headers = Fields::new();
    headers.append("user-agent", USER_AGENT).map_err(|error| refused(&error))?;
    headers.append("accept", b"text/html,*/*;q=0.8").map_err(|error| refused(&error))?;
    let request = OutgoingRequest::new(headers);
    let scheme = if address.secure { Scheme::Https } else { Scheme::Http };
    let set = request
        .set_method(&Method::Get)
        .and_then(|()| request.set_scheme(Some(&scheme)))
        .and_then(|()| request.set_authority(Some(&address.authority)))
        .and_then(|()| request.set_path_with_query(Some(&address.target())));
    set.map_err(|()| TaskError::new("ValueError", "not an address that can be asked for").not_retryable())?;
    let options = RequestOptions::new();
    // A host that knows no such time-out has one of its own.
    _ = options.set_connect_timeout(Some(CONNECT_TIMEOUT_NS));
    let pending = outgoing_handler::handle(request, Some(options)).map_err(|code| failed(&code))?;
    loop {
        match pending.get() {
            Some(Ok(answer)) => return answer.map_err(|code| failed(&code)),
            Some(Err(())) => return Err(TaskError::new("RuntimeError", "the answer was taken already")),
            None => wait(ctx, stop, &pending.subscribe())?,
        }
    }
}

/// The body and whether there was more of it.
fn read(
    ctx: &Context,
    stop: &Pollable,
    response: &IncomingResponse,
    max_bytes: usize,
) -> Result<(Vec<u8>, bool), TaskError> {
    let taken = |()| TaskError::new("RuntimeError", "the body was taken already");
    let body: IncomingBody = response.consume().map_err(taken)?;
    let stream: InputStream = body.stream().map_err(taken)?;
    let mut bytes = Vec::new();
    loop {
        match stream.read(READ_BYTES) {
            Ok(chunk) if chunk.is_empty() => wait(ctx, stop, &stream.subscribe())?,
            Ok(chunk) => {
                let room = max_bytes.saturating_sub(bytes.len());
                bytes.extend(chunk.iter().take(room));
                if chunk.len() > room {
                    return Ok((bytes, true));
                }
            }
            Err(StreamError::Closed) => return Ok((bytes, false)),
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(TaskError::new("ConnectionError", error.to_debug_string()));
            }
        }
    }
}

/// Waits for `event`, or fails when the host wishes the task to stop.
fn wait(ctx: &Context, stop: &Pollable, event: &Pollable) -> Result<(), TaskError> {
    poll(&[event, stop]);
    Ok(ctx.checkpoint()?)
}

fn refused(error: &wasip2::http::types::HeaderError) -> TaskError {
    TaskError::new("ValueError", format!("a header was refused: {error}"))
}

/// The Python exception that says the same.
fn failed(code: &ErrorCode) -> TaskError {
    let exc_type = match code {
        ErrorCode::HttpRequestDenied | ErrorCode::DestinationIpProhibited => "PermissionError",
        ErrorCode::HttpRequestUriInvalid => "ValueError",
        ErrorCode::DnsTimeout
        | ErrorCode::ConnectionTimeout
        | ErrorCode::ConnectionReadTimeout
        | ErrorCode::ConnectionWriteTimeout
        | ErrorCode::HttpResponseTimeout => "TimeoutError",
        ErrorCode::ConnectionRefused => "ConnectionRefusedError",
        _ => "ConnectionError",
    };
    let error = TaskError::new(exc_type, code.to_string());
    // Another attempt is refused as well.
    if matches!(exc_type, "PermissionError" | "ValueError") { error.not_retryable() } else { error }
}
