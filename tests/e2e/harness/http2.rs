//! HTTP/2 frame by frame (RFC 9113) with header blocks that can say anything: literals without indexing and without Huffman codes
//! (RFC 7541 §6.2.2). What comes back is read only as far as a test needs it.

use std::io::{ErrorKind, Read, Write};

/// Frame types (RFC 9113 §6).
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// Flags of HEADERS and DATA.
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;

/// What a stream has got so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StreamAnswer {
    /// Of the final answer.
    pub(crate) status: Option<u16>,
    pub(crate) body: Vec<u8>,
    /// Answered as a whole, or reset.
    pub(crate) is_over: bool,
}

/// One connection.
pub(crate) struct Http2<S> {
    stream: S,
    read: Vec<u8>,
    /// The server has said goodbye, or is gone.
    pub(crate) is_over: bool,
}

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block.
pub(crate) fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        string(&mut block, name.as_ref());
        string(&mut block, value.as_ref());
    }
    block
}

/// RFC 7541 §5.1 and §5.2.
fn string(block: &mut Vec<u8>, text: &[u8]) {
    match u8::try_from(text.len()) {
        Ok(length @ ..127) => block.push(length),
        _ => {
            block.push(127);
            let mut rest = text.len() - 127;
            while rest >= 128 {
                block.push(u8::try_from(rest % 128).unwrap() | 128);
                rest /= 128;
            }
            block.push(u8::try_from(rest).unwrap());
        }
    }
    block.extend_from_slice(text);
}

impl<S: Read + Write> Http2<S> {
    /// Speaks HTTP/2 on a connection: no dynamic table for answers, and as much of them as may come.
    pub(crate) fn new(stream: S) -> Self {
        let mut connection = Self { stream, read: Vec::new(), is_over: false };
        let no_table = [0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0];
        let mut start = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        start.extend(frame(SETTINGS, 0, 0, &no_table));
        start.extend(frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes()));
        connection.send(&start);
        connection
    }

    /// Sends frames; the server may have closed.
    pub(crate) fn send(&mut self, frames: &[u8]) {
        let sent = self.stream.write_all(frames).and_then(|()| self.stream.flush());
        self.is_over |= sent.is_err() && self.read.is_empty();
    }

    /// `GET` on a stream, and its answer.
    pub(crate) fn get(
        &mut self,
        stream: u32,
        authority: &str,
        path: &[u8],
        more: &[(&str, &str)],
    ) -> StreamAnswer {
        self.send(&get(stream, authority, path, more));
        let [answer] = self.answers([stream]);
        answer
    }

    /// The answers of streams, once all are over or the connection is.
    pub(crate) fn answers<const N: usize>(&mut self, streams: [u32; N]) -> [StreamAnswer; N] {
        let mut answers = [const { None::<StreamAnswer> }; N].map(Option::unwrap_or_default);
        while answers.iter().any(|answer| !answer.is_over) {
            let Some((kind, flags, stream, payload)) = self.next() else { break };
            match kind {
                SETTINGS if flags & 1 == 0 => self.send(&frame(SETTINGS, 1, 0, &[])),
                PING if flags & 1 == 0 => self.send(&frame(PING, 1, 0, &payload)),
                // With or without an error: what has been asked may be answered yet, a new stream would not be (RFC 9113 §6.8).
                GOAWAY => self.is_over = true,
                _ => {}
            }
            let Some(at) = streams.iter().position(|known| *known == stream) else { continue };
            let answer = &mut answers[at];
            match kind {
                HEADERS => answer.status = status(&payload).filter(|status| *status >= 200).or(answer.status),
                DATA => answer.body.extend_from_slice(&payload),
                RST_STREAM => answer.is_over = true,
                _ => {}
            }
            answer.is_over |= matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0;
        }
        answers
    }

    fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        loop {
            if let Some(head) = self.read.first_chunk::<9>().copied() {
                let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
                if self.read.len() >= 9 + length {
                    let payload = self.read.drain(..9 + length).skip(9).collect();
                    let stream = u32::from_be_bytes([head[5] & 127, head[6], head[7], head[8]]);
                    return Some((head[3], head[4], stream, payload));
                }
            }
            let mut buffer = [0; 1 << 14];
            match self.stream.read(&mut buffer) {
                Ok(count @ 1..) => self.read.extend_from_slice(&buffer[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("the server neither answers nor closes")
                }
                Ok(0) | Err(_) => {
                    self.is_over = true;
                    return None;
                }
            }
        }
    }
}

/// The frame of a `GET`.
pub(crate) fn get(stream: u32, authority: &str, path: &[u8], more: &[(&str, &str)]) -> Vec<u8> {
    let mut fields: Vec<(&str, &[u8])> = vec![
        (":method", b"GET"),
        (":scheme", b"https"),
        (":authority", authority.as_bytes()),
        (":path", path),
    ];
    fields.extend(more.iter().map(|(name, value)| (*name, value.as_bytes())));
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(&fields))
}

/// `:status`, which is the first field: from the static table, or a literal with that table's name.
fn status(block: &[u8]) -> Option<u16> {
    let mut rest = block;
    // Changes of the size of the table.
    while rest.first().is_some_and(|byte| byte & 0xe0 == 0x20) {
        rest = &rest[1..];
    }
    let (&first, rest) = rest.split_first()?;
    if first & 0x80 != 0 {
        return [200, 204, 206, 304, 400, 404, 500].get(usize::from(first & 0x7f).checked_sub(8)?).copied();
    }
    let (&length, rest) = rest.split_first()?;
    let text = rest.get(..usize::from(length & 0x7f))?;
    if length & 0x80 == 0 {
        return str::from_utf8(text).ok()?.parse().ok();
    }
    digits(text)
}

/// Three digits in Huffman codes (RFC 7541 appendix B): 0 to 2 have five bits, 3 to 9 six.
fn digits(text: &[u8]) -> Option<u16> {
    let mut bits =
        text.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte)) << (64 - 8 * text.len());
    let mut number = 0;
    for _ in 0..3 {
        let (five, six) = (bits >> 59, bits >> 58);
        let (digit, length) = if five < 3 { (five, 5) } else { (six.checked_sub(25)? + 3, 6) };
        number = number * 10 + u16::try_from(digit).ok().filter(|digit| *digit < 10)?;
        bits <<= length;
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read_from_all_forms() {
        assert_eq!(status(&[0x20, 0x88]), Some(200));
        assert_eq!(status(&[0x8c]), Some(400));
        assert_eq!(status(b"\x08\x03431"), Some(431));
        // "302", as in RFC 7541 appendix C.6.1.
        assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]), Some(302));
        assert_eq!(status(&[0x08, 0x83, 0x68, 0x22, 0xff]), digits(&[0x68, 0x22, 0xff]));
    }
}
