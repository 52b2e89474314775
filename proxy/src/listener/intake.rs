//! Cuts what a client sends over HTTP/1 into requests, and hands the engine no byte beyond the one it is reading: a head
//! as a whole and only when the gate has passed it, then the body up to its end. So what follows, pipelined or smuggled, is
//! read by the same strict rules, and the engine never decides where a request begins. No I/O.

use bytes::{Buf as _, BytesMut};
use tokio::io::ReadBuf;

use crate::error::Fault;
use crate::gate::HeadLimits;
use crate::gate::body::Remaining;
use crate::gate::head::{self, Scan};

/// The bytes of one connection on their way in.
#[derive(Debug)]
pub(super) struct Intake {
    stage: Stage,
    /// Received, and not handed out yet.
    held: BytesMut,
    limits: IntakeLimits,
}

/// How large what comes in may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct IntakeLimits {
    /// Bytes of a head.
    pub(super) head_size: usize,
    /// What a head may have in it.
    pub(super) head: HeadLimits,
    /// Bytes of the extensions and trailers of a body.
    pub(super) beside: u32,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// A head is coming.
    Head(Scan),
    /// So many bytes of a good head are to be handed out, and this body follows.
    Ready(usize, Remaining),
    /// A body is coming.
    Body(Remaining),
    /// The request is complete.
    Rest,
    /// The connection is no HTTP any more.
    Tunnel,
}

impl Intake {
    /// Of a new connection.
    pub(super) fn new(limits: IntakeLimits) -> Self {
        Self { stage: Stage::Head(Scan::default()), held: BytesMut::new(), limits }
    }

    /// Whether a head is awaited, of which nothing has been handed out.
    pub(super) fn is_at_head(&self) -> bool {
        matches!(self.stage, Stage::Head(_))
    }

    /// Whether the request that was begun is complete.
    pub(super) fn is_at_rest(&self) -> bool {
        matches!(self.stage, Stage::Rest)
    }

    /// Whether a request's body is not complete.
    pub(super) fn is_in_body(&self) -> bool {
        matches!(self.stage, Stage::Body(_))
    }

    /// The next request may begin; of use only at rest.
    pub(super) fn begin(&mut self) {
        if self.is_at_rest() {
            self.stage = Stage::Head(Scan::default());
        }
    }

    /// Other limits, for the request that comes next.
    pub(super) fn renew_limits(&mut self, limits: IntakeLimits) {
        self.limits = limits;
    }

    /// From here on everything is handed out as it comes.
    pub(super) fn become_tunnel(&mut self) {
        self.stage = Stage::Tunnel;
    }

    /// What is held: of a head that is not complete, all of it.
    pub(super) fn held(&self) -> &[u8] {
        &self.held
    }

    /// Keeps bytes for later.
    pub(super) fn hold(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Hands out what is held, as much as the stage allows and fits; whether that was anything.
    ///
    /// # Errors
    /// What is held is not what has to come now.
    pub(super) fn give(&mut self, buffer: &mut ReadBuf<'_>) -> Result<bool, Fault> {
        if self.held.is_empty() {
            return Ok(false);
        }
        let Self { stage, held, limits } = self;
        let count = portion(stage, held, buffer.remaining(), limits)?;
        buffer.put_slice(held.get(..count).unwrap_or_default());
        held.advance(count);
        if held.is_empty() && held.capacity() > KEPT_BYTES {
            *held = BytesMut::new();
        }
        Ok(count > 0)
    }

    /// Takes what has just been read into `buffer` behind its first `before` bytes: what may be handed out stays there,
    /// the rest is held. Whether anything stayed.
    ///
    /// # Errors
    /// It is not what has to come now; the bytes are held then.
    pub(super) fn take(&mut self, buffer: &mut ReadBuf<'_>, before: usize) -> Result<bool, Fault> {
        let fresh = buffer.filled().get(before..).unwrap_or_default();
        if !self.held.is_empty() {
            self.held.extend_from_slice(fresh);
            buffer.set_filled(before);
            return self.give(buffer);
        }
        let portion = portion(&mut self.stage, fresh, fresh.len(), &self.limits);
        let count = portion.unwrap_or(0);
        self.held.extend_from_slice(fresh.get(count..).unwrap_or_default());
        buffer.set_filled(before + count);
        portion.map(|count| count > 0)
    }
}

/// How many of `bytes` may be handed out now, at most `room`; the stage afterwards is in `stage`.
fn portion(stage: &mut Stage, bytes: &[u8], room: usize, limits: &IntakeLimits) -> Result<usize, Fault> {
    let mut count = 0;
    loop {
        let rest = bytes.get(count..).unwrap_or_default();
        let fitting = rest.get(..rest.len().min(room - count)).unwrap_or_default();
        let given = match stage {
            Stage::Head(scan) => {
                let Some(size) = whole_head(scan, rest, limits.head_size)? else { return Ok(count) };
                let body = head::read(rest.get(..size).unwrap_or_default(), limits.head)?;
                *stage = Stage::Ready(size, Remaining::new(body, limits.beside));
                continue;
            }
            Stage::Ready(left, body) => {
                let given = fitting.len().min(*left);
                *left -= given;
                if *left == 0 {
                    *stage = if body.is_none() { Stage::Rest } else { Stage::Body(*body) };
                }
                given
            }
            Stage::Body(remaining) => {
                let given = remaining.take(fitting)?;
                if remaining.is_none() {
                    *stage = Stage::Rest;
                }
                given
            }
            Stage::Rest => 0,
            Stage::Tunnel => fitting.len(),
        };
        count += given;
        if given == 0 || count == room {
            return Ok(count);
        }
    }
}

/// The size of the head in `bytes`, when it is complete; never more than the limit, complete or not.
fn whole_head(scan: &mut Scan, bytes: &[u8], max_head_size: usize) -> Result<Option<usize>, Fault> {
    let end = scan.end(bytes)?;
    if end.unwrap_or(bytes.len()) <= max_head_size {
        return Ok(end);
    }
    let line = bytes.iter().skip_while(|byte| matches!(byte, b'\r' | b'\n')).position(|&byte| byte == b'\n');
    let is_line_short = scan.has_request_line() && line.is_some_and(|line| line <= max_head_size);
    Err(if is_line_short { Fault::HeadTooLarge } else { Fault::TargetTooLong })
}

/// A connection that holds nothing keeps this much at most.
const KEPT_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";

    /// Sends `pieces`; what the engine gets in each read of at most `room` bytes, until nothing more comes out. `|`
    /// stands for the end of a request.
    fn check(pieces: &[&str], room: usize) -> Result<String, Fault> {
        let mut intake = Intake::new(IntakeLimits { head_size: 200, head: HeadLimits::ENGINE, beside: 100 });
        let mut out = String::new();
        let mut collect = |intake: &mut Intake, filled: &[u8]| {
            out.push_str(str::from_utf8(filled).unwrap());
            if intake.is_at_rest() {
                out.push('|');
                intake.begin();
            }
        };
        for piece in pieces {
            for chunk in piece.as_bytes().chunks(room) {
                let mut space = vec![0; room];
                let mut buffer = ReadBuf::new(&mut space);
                buffer.put_slice(chunk);
                intake.take(&mut buffer, 0)?;
                collect(&mut intake, buffer.filled());
                loop {
                    let mut space = vec![0; room];
                    let mut buffer = ReadBuf::new(&mut space);
                    if !intake.give(&mut buffer)? {
                        break;
                    }
                    collect(&mut intake, buffer.filled());
                }
            }
        }
        Ok(out)
    }

    #[test]
    fn requests_come_one_by_one() {
        let three = format!("{HEAD}abc\r\nGET /2 HTTP/1.1\r\n\r\n{HEAD}def");
        let expected = format!("{HEAD}abc|\r\nGET /2 HTTP/1.1\r\n\r\n|{HEAD}def|");
        for room in [1, 2, 7, 64, 4096] {
            assert_eq!(check(&[&three], room).as_deref(), Ok(expected.as_str()), "{room}");
        }
        let bytes: Vec<String> = three.chars().map(String::from).collect();
        let bytes: Vec<&str> = bytes.iter().map(String::as_str).collect();
        assert_eq!(check(&bytes, 4096).as_deref(), Ok(expected.as_str()));
    }

    #[test]
    fn half_a_head_is_kept() {
        assert_eq!(check(&[&HEAD[..20]], 4096).as_deref(), Ok(""));
        assert_eq!(check(&[&HEAD[..20], &HEAD[20..]], 4096).as_deref(), Ok(HEAD));
    }

    #[test]
    fn what_follows_a_request_is_judged_too() {
        let second = "GET /a b HTTP/1.1\r\n\r\n";
        assert_eq!(check(&[&format!("{HEAD}abc{second}")], 4096), Err(Fault::Malformed("request line")));
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n";
        assert_eq!(check(&[chunked], 4096), Err(Fault::Malformed("size of a chunk")));
    }

    #[test]
    fn heads_have_a_limit() {
        let field = |length: usize| format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(length - 23));
        assert!(check(&[&field(200)], 4096).is_ok());
        assert_eq!(check(&[&field(201)], 4096), Err(Fault::HeadTooLarge));
        assert_eq!(check(&[&field(201)], 1), Err(Fault::HeadTooLarge));
        assert_eq!(check(&[&format!("GET /{}", "x".repeat(300))], 4096), Err(Fault::TargetTooLong));
        assert_eq!(
            check(&[&format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(300))], 4096),
            Err(Fault::TargetTooLong)
        );
        // A body is no part of it.
        assert!(
            check(&[&format!("POST / HTTP/1.1\r\nContent-Length: 300\r\n\r\n{}", "x".repeat(300))], 4096)
                .is_ok()
        );
    }
}
