//! Static files: from a route's folder, a path and the fields of a request to a whole answer.
//!
//! The order of the decisions is the order of [`answer`]: method, name ([`path`]: the file itself, the index of a folder, the
//! fall-back for a page without file), representation ([`encoding`], [`disk`]), preconditions ([`conditional`]), ranges
//! ([`range`]), then the header and the body ([`body`]). Only `disk` and `body`
//! touch the disk. Nothing is listed, nothing is compressed on the way, nothing is written, and no content is kept in
//! memory: a cache of hot small files would stand between `answer` and `disk`.

mod body;
mod conditional;
mod disk;
mod encoding;
mod mime;
mod path;
mod range;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use conf::StaticFiles;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, LAST_MODIFIED, LOCATION, RANGE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tracing::warn;

pub use body::{FileBody, FileStream};

use body::Piece;
use conditional::{Precondition, Validators};
use disk::{Found, Wait};
use encoding::Coding;
use range::{ByteRange, Selection};

/// An answer, ready to be sent.
#[derive(Debug)]
pub struct FileAnswer {
    /// 200, 206, 304 or 308; or an error, whose body is the caller's: 404, 405, 406, 412, 416, 500 or 503.
    pub status: StatusCode,
    /// All fields that belong to the status; `Content-Length` with 200, 206 and 308, also for HEAD.
    pub headers: HeaderMap,
    /// Empty for HEAD, 304, 308 and every error.
    pub body: FileBody,
}

impl FileAnswer {
    fn empty(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: FileBody::Empty }
    }
}

/// A request for a file.
#[derive(Debug, Clone, Copy)]
pub struct FileRequest<'a> {
    /// Method.
    pub method: &'a Method,
    /// Path in RFC 3986 §6.2.2 normal form, without query.
    pub normal_path: &'a str,
    /// Query, without `?`.
    pub query: Option<&'a str>,
    /// Fields.
    pub headers: &'a HeaderMap,
}

/// Answers a request for a file.
///
/// What must not be seen (outside the root, dot files, directories, devices, unreadable files) is 404.
pub async fn answer(files: &StaticFiles, request: FileRequest<'_>) -> FileAnswer {
    if request.method != Method::GET && request.method != Method::HEAD {
        let mut refused = FileAnswer::empty(StatusCode::METHOD_NOT_ALLOWED);
        refused.headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    for _ in 0..ATTEMPTS {
        match attempt(files, request).await {
            Ok(answer) => return answer,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {} // rewritten while we read: look again
            Err(error) => return fault(files, request.normal_path, &error),
        }
    }
    fault(files, request.normal_path, &io::ErrorKind::UnexpectedEof.into())
}

/// The file itself, the index of a folder, or the fall-back.
async fn attempt(files: &StaticFiles, request: FileRequest<'_>) -> io::Result<FileAnswer> {
    let path = request.normal_path;
    if let Some(name) = path::relative(&files.strip_prefix, path) {
        if let Some(answer) = serve(files, &name, files.expires, request).await? {
            return Ok(answer);
        }
        if let Some(index) = &files.index
            && locate(files, &name.join(index), vec![Coding::Identity]).await?.is_some()
        {
            return Ok(with_slash(path, request.query));
        }
    } else if let Some(index) = &files.index
        && let Some(folder) = path::folder(&files.strip_prefix, path)
        && let Some(answer) = serve(files, &folder.join(index), files.expires, request).await?
    {
        return Ok(answer);
    }
    if let Some(fallback) = &files.fallback
        && path::is_page(&files.strip_prefix, path)
        && let Some(answer) = serve(files, Path::new(fallback), None, request).await?
    {
        return Ok(answer);
    }
    Ok(FileAnswer::empty(StatusCode::NOT_FOUND))
}

/// The answer with this file; `None` when there is none.
async fn serve(
    files: &StaticFiles,
    name: &Path,
    expires: Option<Duration>,
    request: FileRequest<'_>,
) -> io::Result<Option<FileAnswer>> {
    let FileRequest { method, headers, .. } = request;
    let candidates = encoding::acceptable(headers, &files.precompressed);
    let Some(found) = locate(files, name, candidates.clone()).await? else {
        return unacceptable(files, name, &candidates).await;
    };
    let representation = Representation::new(files, name, expires, &found);
    match conditional::evaluate(headers, representation.validators()) {
        Precondition::Failed => return Ok(Some(representation.refused(StatusCode::PRECONDITION_FAILED))),
        Precondition::NotModified => return Ok(Some(representation.not_modified())),
        Precondition::Proceed => {}
    }
    Ok(Some(match representation.select(method, headers) {
        Selection::Unsatisfiable => representation.refused(StatusCode::RANGE_NOT_SATISFIABLE),
        _ if method == Method::HEAD => representation.whole(FileBody::Empty),
        Selection::Whole => representation.whole(representation.read_all(&found).await?),
        Selection::Parts(parts) => match *parts {
            [part] => representation.part(part, read(&found, part).await?),
            _ => representation.multipart(&found, &parts)?,
        },
    }))
}

/// 406 when the file is there and only the wanted representation is not (RFC 9110 §12.5.3).
async fn unacceptable(
    files: &StaticFiles,
    name: &Path,
    candidates: &[Coding],
) -> io::Result<Option<FileAnswer>> {
    if candidates.contains(&Coding::Identity) || locate(files, name, vec![Coding::Identity]).await?.is_none()
    {
        return Ok(None);
    }
    let mut refused = FileAnswer::empty(StatusCode::NOT_ACCEPTABLE);
    refused.headers.insert(VARY, HeaderValue::from(ACCEPT_ENCODING));
    Ok(Some(refused))
}

/// Links in the index of a folder begin at the folder only when the path ends with a slash. The path begins with one segment that
/// is there, never with `//`, so that this leads to no other host.
fn with_slash(normal_path: &str, query: Option<&str>) -> FileAnswer {
    let mut moved = FileAnswer::empty(StatusCode::PERMANENT_REDIRECT);
    let (mark, query) = query.map_or(("", ""), |query| ("?", query));
    insert(&mut moved.headers, LOCATION, &format!("{normal_path}/{mark}{query}"));
    moved.headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
    moved
}

fn fault(files: &StaticFiles, path: &str, error: &io::Error) -> FileAnswer {
    let status = match error.kind() {
        io::ErrorKind::PermissionDenied => StatusCode::NOT_FOUND,
        io::ErrorKind::TimedOut | io::ErrorKind::ResourceBusy => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    warn!(root = %files.root.display(), %path, status = status.as_u16(), %error, "cannot serve a file");
    FileAnswer::empty(status)
}

async fn locate(files: &StaticFiles, name: &Path, candidates: Vec<Coding>) -> io::Result<Option<Found>> {
    match disk::find(&files.root, name, &candidates, Wait::Never) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            let (root, name) = (files.root.clone(), name.to_owned());
            disk::off_thread(move || disk::find(&root, &name, &candidates, Wait::Allowed)).await
        }
        result => result,
    }
}

/// A body of one range of the file, in memory when it is small.
async fn read(found: &Found, part: ByteRange) -> io::Result<FileBody> {
    let mut stream = FileStream::new(found.open()?, [Piece::Range(part)]);
    if part.length() > SMALL_BYTES {
        return Ok(FileBody::File(stream));
    }
    Ok(stream.next_chunk().await?.map_or(FileBody::Empty, FileBody::Bytes))
}

/// What the header says about the chosen file.
struct Representation {
    size: u64,
    etag: String,
    last_modified: Option<std::time::SystemTime>,
    content_type: HeaderValue,
    encoding: Option<&'static str>,
    cache_control: HeaderValue,
    varies: bool,
    boundary: String,
}

impl Representation {
    fn new(files: &StaticFiles, name: &Path, expires: Option<Duration>, found: &Found) -> Self {
        let encoding = found.coding.token();
        let fingerprint = format!("{:016x}", found.fingerprint);
        Self {
            size: found.size,
            etag: match encoding {
                Some(token) => format!("\"{fingerprint}-{token}\""),
                None => format!("\"{fingerprint}\""),
            },
            last_modified: found.last_modified,
            content_type: mime::content_type(name),
            encoding,
            cache_control: cache_control(expires),
            varies: !files.precompressed.is_empty(),
            boundary: fingerprint,
        }
    }

    fn validators(&self) -> Validators<'_> {
        Validators { etag: &self.etag, last_modified: self.last_modified }
    }

    /// Ranges are for GET only (RFC 9110 §14.2). Several ranges of a compressed file are not served: no field could say
    /// that the parts are compressed and the frame around them is not.
    fn select(&self, method: &Method, headers: &HeaderMap) -> Selection {
        let mut values = headers.get_all(RANGE).iter();
        let (Some(value), None, true) = (values.next(), values.next(), method == Method::GET) else {
            return Selection::Whole;
        };
        let Ok(value) = value.to_str() else { return Selection::Whole };
        if !conditional::range_applies(headers, self.validators()) {
            return Selection::Whole;
        }
        match range::select(value, self.size) {
            Selection::Parts(parts) if parts.len() > 1 && self.encoding.is_some() => Selection::Whole,
            selection => selection,
        }
    }

    async fn read_all(&self, found: &Found) -> io::Result<FileBody> {
        match self.size.checked_sub(1) {
            None => Ok(FileBody::Empty),
            Some(last) => read(found, ByteRange { first: 0, last }).await,
        }
    }

    fn whole(&self, body: FileBody) -> FileAnswer {
        let mut headers = self.fields();
        headers.insert(CONTENT_TYPE, self.content_type.clone());
        headers.insert(CONTENT_LENGTH, HeaderValue::from(self.size));
        FileAnswer { status: StatusCode::OK, headers, body }
    }

    fn part(&self, part: ByteRange, body: FileBody) -> FileAnswer {
        let mut headers = self.fields();
        headers.insert(CONTENT_TYPE, self.content_type.clone());
        headers.insert(CONTENT_LENGTH, HeaderValue::from(part.length()));
        insert(&mut headers, CONTENT_RANGE, &content_range(part, self.size));
        FileAnswer { status: StatusCode::PARTIAL_CONTENT, headers, body }
    }

    /// RFC 9110 §14.6: each part with its own type and place.
    fn multipart(&self, found: &Found, parts: &[ByteRange]) -> io::Result<FileAnswer> {
        let mut pieces = Vec::with_capacity(parts.len() * 2 + 1);
        let mut length = 0;
        for (index, part) in parts.iter().enumerate() {
            let mut head = Vec::with_capacity(160);
            head.extend_from_slice(if index == 0 { b"--" } else { b"\r\n--" });
            head.extend_from_slice(self.boundary.as_bytes());
            head.extend_from_slice(b"\r\nContent-Type: ");
            head.extend_from_slice(self.content_type.as_bytes());
            head.extend_from_slice(b"\r\nContent-Range: ");
            head.extend_from_slice(content_range(*part, self.size).as_bytes());
            head.extend_from_slice(b"\r\n\r\n");
            length += head.len() as u64 + part.length();
            pieces.push(Piece::Text(head.into()));
            pieces.push(Piece::Range(*part));
        }
        let end = Bytes::from(format!("\r\n--{}--\r\n", self.boundary));
        length += end.len() as u64;
        pieces.push(Piece::Text(end));

        let mut headers = self.fields();
        insert(&mut headers, CONTENT_TYPE, &format!("multipart/byteranges; boundary={}", self.boundary));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        let body = FileBody::File(FileStream::new(found.open()?, pieces));
        Ok(FileAnswer { status: StatusCode::PARTIAL_CONTENT, headers, body })
    }

    /// RFC 9110 §15.4.5: what a cache has to refresh, nothing about the body.
    fn not_modified(&self) -> FileAnswer {
        let mut headers = self.fields();
        headers.remove(CONTENT_ENCODING);
        headers.remove(ACCEPT_RANGES);
        FileAnswer { status: StatusCode::NOT_MODIFIED, headers, body: FileBody::Empty }
    }

    /// 412 or 416; says nothing about caching, so that nobody keeps it for a year.
    fn refused(&self, status: StatusCode) -> FileAnswer {
        let mut refused = FileAnswer::empty(status);
        if self.varies {
            refused.headers.insert(VARY, HeaderValue::from(ACCEPT_ENCODING));
        }
        if status == StatusCode::RANGE_NOT_SATISFIABLE {
            insert(&mut refused.headers, CONTENT_RANGE, &format!("bytes */{}", self.size));
        }
        refused
    }

    /// Fields of every good answer.
    fn fields(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(10);
        insert(&mut headers, ETAG, &self.etag);
        if let Some(time) = self.last_modified {
            insert(&mut headers, LAST_MODIFIED, &httpdate::fmt_http_date(time));
        }
        headers.insert(CACHE_CONTROL, self.cache_control.clone());
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if self.varies {
            headers.insert(VARY, HeaderValue::from(ACCEPT_ENCODING));
        }
        if let Some(token) = self.encoding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(token));
        }
        headers
    }
}

/// `immutable` (RFC 8246) for what is kept a year or longer: such files have a new name when they change.
fn cache_control(expires: Option<Duration>) -> HeaderValue {
    let Some(expires) = expires else { return HeaderValue::from_static("no-cache") };
    let immutable = if expires >= YEAR { ", immutable" } else { "" };
    HeaderValue::try_from(format!("public, max-age={}{immutable}", expires.as_secs()))
        .unwrap_or(HeaderValue::from_static("no-cache"))
}

fn content_range(part: ByteRange, size: u64) -> String {
    format!("bytes {}-{}/{size}", part.first, part.last)
}

/// For values that we made of printable characters.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// A file that shrinks this often while it is read is written all the time.
const ATTEMPTS: usize = 3;

/// Read at once instead of in pieces: fewer steps for what web clients ask most.
const SMALL_BYTES: u64 = 64 << 10;

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
