//! Sends answers of our own: faults, fixed answers, redirects, files. What is sent is decided elsewhere.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, LOCATION, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use pingora::{Error, ErrorType, OrErr as _, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::error::{self, Asked, Fault};
use crate::files::FileAnswer;
use crate::listener::ClientConnection;
use crate::maintenance::Notice;

/// Tells the client what went wrong, unless an answer has begun or nobody is left; the status that was sent. `extra` are the
/// route's own fields.
pub(crate) async fn fault(
    session: &mut Session,
    fault: Fault,
    extra: Option<&HeaderMap>,
) -> Result<Option<StatusCode>> {
    let has_begun = session.response_written().is_some_and(|header| {
        !header.status.is_informational() || header.status == StatusCode::SWITCHING_PROTOCOLS
    });
    if has_begun {
        return Ok(None);
    }
    let Some(mut answer) = error::answer(fault, asked(session)) else { return Ok(None) };
    replace(&mut answer.headers, extra);
    whole(session, answer.status, &answer.headers, Bytes::from(answer.body)).await?;
    Ok(Some(answer.status))
}

/// Tells the client of maintenance mode.
pub(crate) async fn maintenance(session: &mut Session, notice: &Notice) -> Result<()> {
    let answer = error::maintenance(notice, asked(session));
    whole(session, answer.status, &answer.headers, Bytes::from(answer.body)).await
}

/// Sends the client elsewhere.
pub(crate) async fn redirect(
    session: &mut Session,
    status: StatusCode,
    location: &str,
    extra: Option<&HeaderMap>,
) -> Result<()> {
    let mut headers = extra.cloned().unwrap_or_default();
    if let Ok(location) = HeaderValue::from_str(location) {
        headers.insert(LOCATION, location);
    }
    whole(session, status, &headers, Bytes::new()).await
}

/// Sends an answer that is in memory.
pub(crate) async fn whole(
    session: &mut Session,
    status: StatusCode,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<()> {
    let mut header = head(status, headers)?;
    let may_have_body = !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if may_have_body {
        header.insert_header(CONTENT_LENGTH, body.len())?;
    }
    let sends_body = may_have_body && !body.is_empty() && session.req_header().method != Method::HEAD;
    session.write_response_header(Box::new(header), !sends_body).await?;
    if sends_body {
        write(session, body, true).await?;
    } else if session.is_http2() {
        // The engine does not end a stream with its header, and after an upstream's fault it drops the stream.
        session.write_response_body(None, true).await?;
    }
    take_rest(session).await;
    Ok(())
}

/// Sends a file, or says why there is none.
pub(crate) async fn file(
    session: &mut Session,
    mut file: FileAnswer,
    extra: Option<&HeaderMap>,
) -> Result<()> {
    replace(&mut file.headers, extra);
    if file.status.is_client_error() || file.status.is_server_error() {
        let told = error::answer(Fault::File(file.status), asked(session));
        let Some(mut told) = told else { return Ok(()) };
        // `Allow` and `Content-Range` say what would have been possible.
        replace(&mut told.headers, Some(&file.headers));
        return whole(session, told.status, &told.headers, Bytes::from(told.body)).await;
    }
    let header = head(file.status, &file.headers)?;
    session.write_response_header(Box::new(header), file.body.is_at_end()).await?;
    while let Some(chunk) = file.body.next_chunk().await.or_err(ErrorType::FileReadError, "reading a file")? {
        write(session, chunk, file.body.is_at_end()).await?;
    }
    take_rest(session).await;
    Ok(())
}

/// Sends a part of a body. Over HTTP/2 the engine has one deadline for what it is given, so that is not too much.
async fn write(session: &mut Session, mut part: Bytes, is_last: bool) -> Result<()> {
    let connection = ClientConnection::of(session).filter(|_| session.is_http2()).cloned();
    let held = |piece: Bytes| match &connection {
        Some(connection) => connection.holding(piece).map_err(|_| given_up()),
        None => Ok(piece),
    };
    while connection.is_some() && part.len() > PIECE_BYTES {
        let piece = held(part.split_to(PIECE_BYTES))?;
        session.write_response_body(Some(piece), false).await?;
    }
    let last = held(part)?;
    session.write_response_body(Some(last), is_last).await
}

/// Sets fields in place of those of the same name.
pub(crate) fn replace(headers: &mut HeaderMap, extra: Option<&HeaderMap>) {
    for (name, value) in extra.into_iter().flatten() {
        headers.insert(name, value.clone());
    }
}

fn asked(session: &Session) -> Asked<'_> {
    let request = session.req_header();
    Asked { method: &request.method, target: request.raw_path() }
}

fn head(status: StatusCode, headers: &HeaderMap) -> Result<ResponseHeader> {
    let mut header = ResponseHeader::build_no_case(status, Some(headers.len() + 4))?;
    for (name, value) in headers.iter().filter(|(name, _)| **name != TRANSFER_ENCODING) {
        header.append_header(name, value.clone())?;
    }
    Ok(header)
}

/// An answer to a request whose body is still coming. Over HTTP/1 the connection ends, gently. Over HTTP/2 the rest
/// is read for a while: some clients take a stream that ends early for an error and don't show the answer.
async fn take_rest(session: &mut Session) {
    if session.is_body_done() {
        return;
    }
    if session.is_http2() {
        session.set_total_drain_timeout(Some(REST));
        // Whatever comes of it, the answer has been sent.
        let _ = session.drain_request_body().await;
    } else if let Some(connection) = ClientConnection::of(session) {
        connection.linger();
    }
}

/// The end of an answer because the client's connection ends, for something that is counted and logged there.
pub(crate) fn given_up() -> Box<Error> {
    Error::explain(ErrorType::ConnectionClosed, "the connection is ended").into_down()
}

/// An error of ours that ends a request; the fault is in the context.
pub(crate) fn failed(context: &'static str) -> Box<Error> {
    Error::explain(ErrorType::InternalError, context).into_in()
}

/// The largest piece of a body that goes to the engine at once over HTTP/2; pieces from upstreams are as large.
pub(crate) const PIECE_BYTES: usize = 64 * 1024;
/// As long as a client over HTTP/1 is listened to when it is refused.
const REST: Duration = Duration::from_secs(2);
