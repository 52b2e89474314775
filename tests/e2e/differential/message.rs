//! One generated request: honest pieces that a mutation then spoils, and what it was meant to say.

use crate::harness::Dice;

/// What the other side of the connection does after the last byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Sends an honest probe on the same connection and waits for both answers.
    Probe,
    /// Says that nothing more comes, and waits for the answer.
    HalfClose,
}

/// What a request says when it is read as it was meant.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meaning {
    /// Number of the case.
    pub(crate) id: usize,
    /// As many upstream requests may come of it.
    pub(crate) most: usize,
    /// Whether the client says that nothing more comes.
    pub(crate) is_half_closed: bool,
    pub(crate) method: String,
    pub(crate) target: Vec<u8>,
    pub(crate) host: String,
    /// Names in lower case, in order.
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

/// The pieces of a request, as bytes.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) id: usize,
    /// Bytes before the request line.
    pub(crate) before: Vec<u8>,
    pub(crate) method: Vec<u8>,
    pub(crate) target: Vec<u8>,
    pub(crate) version: Vec<u8>,
    /// The whole request line instead of the three.
    pub(crate) line: Option<Vec<u8>>,
    /// Lines without their ends, as are the next two.
    pub(crate) host: Vec<Vec<u8>>,
    pub(crate) fields: Vec<Vec<u8>>,
    pub(crate) framing: Vec<Vec<u8>>,
    /// Whether the framing comes before the other fields.
    pub(crate) framing_first: bool,
    /// Ends every line.
    pub(crate) end: &'static [u8],
    /// Ends the head.
    pub(crate) blank: Vec<u8>,
    pub(crate) body: Vec<u8>,
    /// Honest requests behind it.
    pub(crate) behind: Vec<u8>,
    pub(crate) ending: Ending,
    pub(crate) meaning: Meaning,
}

const UNRESERVED: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";
const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz";
const VISIBLE: &[u8] = b"!\"#$%&'()*+,-./0123456789:;<=>?@ABCXYZ[\\]^_`abcxyz{|}~";

impl Message {
    /// An honest request; one that `may_have_body` has one half of the time.
    pub(crate) fn honest(id: usize, dice: &mut Dice) -> Self {
        let has_body = dice.once_in(2);
        let method = if has_body {
            dice.one_of(&["POST", "PUT", "PATCH", "PROPFIND", "DELETE"])
        } else {
            dice.one_of(&["GET", "GET", "GET", "HEAD", "DELETE", "OPTIONS"])
        };
        let target = honest_target(id, dice);
        let host =
            dice.one_of(&["a.example", "A.Example", "matrix.example.com:8448", "127.0.0.1", "[::1]:80"]);
        let mut message = Self {
            id,
            before: Vec::new(),
            method: method.into(),
            target: target.clone(),
            version: b"HTTP/1.1".to_vec(),
            line: None,
            host: vec![format!("{}: {host}", dice.one_of(&["Host", "host", "HOST"])).into_bytes()],
            fields: Vec::new(),
            framing: Vec::new(),
            framing_first: dice.once_in(2),
            end: b"\r\n",
            blank: b"\r\n".to_vec(),
            body: Vec::new(),
            behind: Vec::new(),
            ending: Ending::Probe,
            meaning: Meaning {
                id,
                most: 1,
                method: method.into(),
                target,
                host: host.into(),
                ..Meaning::default()
            },
        };
        for number in 0..dice.below(4) {
            let name = format!("X-{}{number}", dice.word(LETTERS, 1, 8));
            let value = dice.word(VISIBLE, 1, 20);
            message.add_field(&name, value.as_bytes(), dice);
        }
        if has_body {
            let body = honest_body(id, dice);
            if dice.once_in(2) { message.set_length(&body) } else { message.set_chunked(&body, dice) }
        }
        message
    }

    /// Adds a field whose value may have white space around it.
    pub(crate) fn add_field(&mut self, name: &str, value: &[u8], dice: &mut Dice) {
        let (before, after) = (dice.one_of(&[" ", " ", "", "\t", "  "]), dice.one_of(&["", "", " ", "\t"]));
        let line = [name.as_bytes(), b":", before.as_bytes(), value, after.as_bytes()].concat();
        self.fields.push(line);
        self.meaning.fields.push((name.to_ascii_lowercase(), value.to_vec()));
    }

    /// A line that is no part of what is meant.
    pub(crate) fn add_line(&mut self, line: &[u8]) {
        self.fields.push(line.to_vec());
    }

    /// `Content-Length` and as many bytes.
    pub(crate) fn set_length(&mut self, body: &[u8]) {
        self.framing = vec![format!("Content-Length: {}", body.len()).into_bytes()];
        self.body = body.to_vec();
        self.meaning.body = body.to_vec();
    }

    /// `Transfer-Encoding: chunked` and honest chunks.
    pub(crate) fn set_chunked(&mut self, body: &[u8], dice: &mut Dice) {
        self.framing = vec![b"Transfer-Encoding: chunked".to_vec()];
        self.body.clear();
        let mut rest = body;
        while !rest.is_empty() {
            let (chunk, more) = rest.split_at(dice.between(1, rest.len()));
            let size = match dice.below(3) {
                0 => format!("{:x}", chunk.len()),
                1 => format!("{:X}", chunk.len()),
                _ => format!("0{:x}", chunk.len()),
            };
            self.body.extend([size.as_bytes(), b"\r\n", chunk, b"\r\n"].concat());
            rest = more;
        }
        self.body.extend_from_slice(b"0\r\n\r\n");
        self.meaning.body = body.to_vec();
    }

    /// Framing lines and body bytes as given, for a method that may have a body.
    pub(crate) fn set_raw(&mut self, framing: &[&[u8]], body: &[u8], meant: &[u8]) {
        self.set_method("POST");
        self.framing = framing.iter().map(|line| line.to_vec()).collect();
        self.body = body.to_vec();
        self.meaning.body = meant.to_vec();
    }

    /// Changes the method, and means it.
    pub(crate) fn set_method(&mut self, method: &str) {
        self.method = method.into();
        self.meaning.method = method.into();
    }

    /// Takes the body away.
    pub(crate) fn set_no_body(&mut self) {
        self.framing.clear();
        self.body.clear();
        self.meaning.body.clear();
    }

    /// Lets the client say that nothing more comes.
    pub(crate) fn half_close(&mut self) {
        self.ending = Ending::HalfClose;
        self.meaning.is_half_closed = true;
    }

    /// What an attacker wants to reach the upstream as a request of its own.
    pub(crate) fn inner(&self) -> Vec<u8> {
        format!("GET /smuggled/{} HTTP/1.1\r\nHost: inner.example\r\n\r\n", self.id).into_bytes()
    }

    /// Request line, fields, empty line.
    pub(crate) fn head(&self) -> Vec<u8> {
        let line = [&self.method[..], b" ", &self.target, b" ", &self.version].concat();
        let mut head = self.before.clone();
        let (first, second) = match self.framing_first {
            true => (&self.framing, &self.fields),
            false => (&self.fields, &self.framing),
        };
        for line in
            std::iter::once(self.line.as_ref().unwrap_or(&line)).chain(&self.host).chain(first).chain(second)
        {
            head.extend_from_slice(line);
            head.extend_from_slice(self.end);
        }
        head.extend_from_slice(&self.blank);
        head
    }

    /// Everything that is sent, but the probe.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        [self.head(), self.body.clone(), self.behind.clone()].concat()
    }
}

/// A target from the grammar of RFC 3986, without what paths can be read differently for; that is what `targets` is about.
fn honest_target(id: usize, dice: &mut Dice) -> Vec<u8> {
    let mut target = format!("/case/{id}");
    for _ in 0..dice.below(4) {
        target.push('/');
        target.push_str(&piece(dice));
    }
    if dice.once_in(3) {
        target.push('?');
        target.push_str(&piece(dice));
    }
    target.into_bytes()
}

fn piece(dice: &mut Dice) -> String {
    let mut piece = dice.word(UNRESERVED, 1, 8);
    if dice.once_in(2) {
        piece.push_str(dice.one_of(&[
            "%20", "%C3%A9", "%c3%a9", ":", "@", "!", "$", "&", "'", "(", ")", "*", "+", ",", ";=", "%23",
            "%3F",
        ]));
        piece.push_str(&dice.word(UNRESERVED, 1, 3));
    }
    // No dot segment.
    format!("s{piece}")
}

/// A body, sometimes one that looks like requests.
fn honest_body(id: usize, dice: &mut Dice) -> Vec<u8> {
    match dice.below(4) {
        0 => format!("GET /smuggled/{id} HTTP/1.1\r\nHost: inner.example\r\n\r\n").into_bytes(),
        1 => format!("0\r\n\r\nGET /smuggled/{id} HTTP/1.1\r\nHost: inner.example\r\n\r\n").into_bytes(),
        2 => (0..dice.between(1, 3000)).map(|at| u8::try_from(at % 256).unwrap()).collect(),
        _ => dice.word(VISIBLE, 1, 100).into_bytes(),
    }
}
