//! One case on one lane: the request and an honest probe behind it on the same connection, then another client's request through
//! the same proxy.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use super::message::{Ending, Message};
use super::proxies::{Connection, Lane};
use super::recorder::Received;

/// What came of a case.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Upstream requests but the honest ones around it.
    pub(crate) requests: Vec<Received>,
    /// Status of the final answers before the probe's.
    pub(crate) statuses: Vec<u16>,
    /// What must never happen, whoever forwards.
    pub(crate) mixed_up: Vec<String>,
    /// The proxy answered with something that is no HTTP.
    pub(crate) nonsense: bool,
}

impl Seen {
    /// Takes what the upstream has got. A request that a proxy gave up on may arrive when its case is over; it is cut off then.
    pub(super) fn take(&mut self, lane: &Lane, id: usize) {
        match lane.recorder.take() {
            Ok(mut received) => {
                received.retain(|request| !request.is_probe());
                for late in received.extract_if(.., |request| request.case().is_some_and(|case| case != id)) {
                    if late.is_complete {
                        self.mixed_up.push(format!("a request of another case: {}", late.shown()));
                    }
                }
                self.requests = received;
            }
            Err(problem) => self.mixed_up.push(problem),
        }
    }
}

/// An answer as far as it matters here.
#[derive(Debug, Clone)]
struct Answer {
    status: u16,
    /// The target that the upstream answered.
    to: Option<String>,
}

/// Another client of the same proxy, whose requests are honest.
pub(crate) struct Victim {
    connection: Option<Stream>,
}

impl Victim {
    /// One that has not asked yet.
    pub(crate) const fn new() -> Self {
        Self { connection: None }
    }

    /// One honest request; what is wrong with its answer.
    pub(crate) fn ask(&mut self, lane: &Lane, id: usize) -> Option<String> {
        let target = format!("/victim/{id}");
        let request = format!("GET {target} HTTP/1.1\r\nHost: victim.example\r\n\r\n");
        let mut answer = None;
        // A proxy may have closed the idle connection.
        for _ in 0..2 {
            let stream = self.connection.get_or_insert_with(|| Stream::new(lane.connect()));
            let sent = stream.connection.write_all(request.as_bytes());
            answer = sent.ok().and_then(|()| stream.answer(false));
            if answer.is_some() {
                break;
            }
            self.connection = None;
        }
        match answer {
            Some(Answer { status: 200, to: Some(to) }) if to == target => None,
            other => Some(format!("another client's {target} was answered with {other:?}")),
        }
    }
}

/// Sends a message and sees what comes of it.
pub(crate) fn run(lane: &Lane, victim: &mut Victim, message: &Message, pieces: usize) -> Seen {
    let mut seen = Seen::default();
    let probe = format!("/probe/{}", message.id);
    let mut stream = Stream::new(lane.connect());
    let mut bytes = message.bytes();
    if message.ending == Ending::Probe {
        bytes.extend_from_slice(format!("GET {probe} HTTP/1.1\r\nHost: probe.example\r\n\r\n").as_bytes());
    }
    send(&mut stream.connection, &bytes, pieces);
    if message.ending == Ending::HalfClose {
        stream.connection.half_close();
    }
    let mut answers = VecDeque::new();
    let mut is_head = message.method == b"HEAD";
    while let Some(answer) = stream.answer(is_head) {
        is_head = false;
        if answer.to.as_deref() == Some(&probe) {
            break;
        }
        answers.push_back(answer);
    }
    seen.nonsense = stream.is_nonsense && !answers.iter().any(|answer| answer.status >= 400);
    seen.mixed_up.extend(victim.ask(lane, message.id));
    seen.take(lane, message.id);
    seen.statuses = answers.iter().map(|answer| answer.status).collect();
    let mut answered = seen.requests.iter().map(|request| request.target.escape_ascii().to_string());
    for to in answers.iter().filter_map(|answer| answer.to.as_ref()) {
        if !answered.any(|target| target == *to) {
            seen.mixed_up.push(format!("an answer belongs to {to}, which was not asked for there"));
        }
    }
    seen
}

/// The proxy may have closed before everything is sent.
fn send(connection: &mut Connection, bytes: &[u8], pieces: usize) {
    for piece in bytes.chunks(bytes.len().div_ceil(pieces).max(1)) {
        if connection.write_all(piece).is_err() {
            return;
        }
        if pieces > 1 {
            // What is tested is that a request may come in pieces; there is nothing to wait for but time.
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Reads answers.
struct Stream {
    connection: Connection,
    read: Vec<u8>,
    is_over: bool,
    is_nonsense: bool,
}

impl Stream {
    fn new(connection: Connection) -> Self {
        Self { connection, read: Vec::new(), is_over: false, is_nonsense: false }
    }

    /// The next final answer, `None` at the end.
    fn answer(&mut self, is_head: bool) -> Option<Answer> {
        loop {
            let end = self.find(b"\r\n\r\n")?;
            let head: Vec<u8> = self.read.drain(..end + 4).collect();
            let head = String::from_utf8_lossy(&head).into_owned();
            let field = |name: &str| {
                let named =
                    |line: &&str| line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case(name));
                head.lines()
                    .find(named)
                    .and_then(|line| line.split_once(':'))
                    .map(|(_, value)| value.trim().to_owned())
            };
            let status = head.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
            let Some(status) = status.filter(|_| head.starts_with("HTTP/1.")) else {
                self.is_nonsense = true;
                while self.fill() {}
                return None;
            };
            if status < 200 && status != 101 {
                continue;
            }
            let answer = Answer { status, to: field("x-answer-to") };
            if is_head || status == 204 || status == 304 {
                return Some(answer);
            }
            match field("content-length").and_then(|length| length.parse::<usize>().ok()) {
                Some(length) => {
                    while self.read.len() < length && self.fill() {}
                    self.read.drain(..length.min(self.read.len()));
                }
                // The recorder says a length; so this is an answer of the proxy's own, and its last.
                None => while self.fill() {},
            }
            return Some(answer);
        }
    }

    fn find(&mut self, wanted: &[u8]) -> Option<usize> {
        loop {
            if let Some(at) = self.read.windows(wanted.len()).position(|window| window == wanted) {
                return Some(at);
            }
            if !self.fill() {
                self.is_nonsense |= !self.read.is_empty();
                return None;
            }
        }
    }

    /// False at the end.
    fn fill(&mut self) -> bool {
        let mut buffer = [0; 1 << 14];
        while !self.is_over {
            match self.connection.read(&mut buffer) {
                Ok(count @ 1..) => {
                    self.read.extend_from_slice(&buffer[..count]);
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("a proxy neither answers nor closes; read so far: {}", self.read.escape_ascii())
                }
                Ok(0) | Err(_) => self.is_over = true,
            }
        }
        false
    }
}
