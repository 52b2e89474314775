//! Where the frames of one direction of an HTTP/2 connection begin (RFC 9113 §4.1), in pieces as they come.

/// The first nine bytes of a frame, and of an `RST_STREAM` the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// Bytes of payload, padding included.
    pub length: u32,
    /// What it is.
    pub kind: Kind,
    /// As sent; what they mean depends on the kind.
    pub flags: u8,
    /// 0 for those of the connection.
    pub stream: u32,
    /// Of an `RST_STREAM`: its error code (RFC 9113 §7); else 0.
    pub code: u32,
}

/// Types of frames (RFC 9113 §6), as far as anybody here has to tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A piece of a body.
    Data,
    /// The beginning of a header block.
    Headers,
    /// The end of a stream by force.
    Reset,
    /// More of a header block.
    Continuation,
    /// `PRIORITY`, `SETTINGS`, `PUSH_PROMISE`, `PING`, `GOAWAY`, `WINDOW_UPDATE`, and those of extensions.
    Control(u8),
}

/// Finds the frames in a stream of bytes.
#[derive(Debug)]
pub struct Frames {
    /// Bytes that are still to come before the next head: of the client's preface, or of a payload.
    skip: u32,
    head: [u8; RESET_BYTES],
    /// Bytes of `head` that have come.
    filled: usize,
}

impl FrameHead {
    /// The last frame of its stream in this direction.
    pub fn ends_stream(&self) -> bool {
        matches!(self.kind, Kind::Data | Kind::Headers) && self.flags & END_STREAM != 0
    }

    /// The last frame of its header block.
    pub fn ends_block(&self) -> bool {
        matches!(self.kind, Kind::Headers | Kind::Continuation) && self.flags & END_HEADERS != 0
    }

    /// The frame that begins with these bytes, of which the last four count for an `RST_STREAM` alone.
    fn parse(bytes: [u8; RESET_BYTES]) -> Self {
        let [l1, l2, l3, kind, flags, s1, s2, s3, s4, code @ ..] = bytes;
        Self {
            length: u32::from_be_bytes([0, l1, l2, l3]),
            kind: match kind {
                0 => Kind::Data,
                1 => Kind::Headers,
                RESET => Kind::Reset,
                9 => Kind::Continuation,
                other => Kind::Control(other),
            },
            flags,
            // The first bit is reserved and ignored.
            stream: u32::from_be_bytes([s1 & 0x7f, s2, s3, s4]),
            code: if [l1, l2, l3, kind] == WHOLE_RESET { u32::from_be_bytes(code) } else { 0 },
        }
    }
}

impl Frames {
    /// What a client sends: its preface (RFC 9113 §3.4) comes first, and whether it is one is the library's business.
    pub fn of_client() -> Self {
        Self { skip: PREFACE_BYTES, ..Self::of_server() }
    }

    /// What a server sends.
    pub fn of_server() -> Self {
        Self { skip: 0, head: [0; RESET_BYTES], filled: 0 }
    }

    /// Takes the next bytes; `each` is told of the frames whose heads become complete, in order.
    pub fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(FrameHead)) {
        while !bytes.is_empty() {
            let skipped = bytes.len().min(self.skip as usize);
            // No more than `skip`, so it fits.
            self.skip -= u32::try_from(skipped).unwrap_or(self.skip);
            bytes = bytes.get(skipped..).unwrap_or_default();
            let wanted = self.wanted();
            let missing = self.head.get_mut(self.filled..wanted).unwrap_or_default();
            let taken = bytes.len().min(missing.len());
            for (place, byte) in missing.iter_mut().zip(bytes) {
                *place = *byte;
            }
            self.filled += taken;
            bytes = bytes.get(taken..).unwrap_or_default();
            if self.filled == self.wanted() {
                let head = FrameHead::parse(self.head);
                self.skip =
                    head.length.saturating_sub(u32::try_from(wanted - HEAD_BYTES).unwrap_or_default());
                self.filled = 0;
                each(head);
            }
        }
    }

    /// How many bytes have to be seen together: as far as is known, those of the head, or of the whole `RST_STREAM`.
    fn wanted(&self) -> usize {
        let is_reset = self.filled >= HEAD_BYTES && self.head.starts_with(&WHOLE_RESET);
        if is_reset { RESET_BYTES } else { HEAD_BYTES }
    }

    /// The payload of the last frame is there; the next may have begun.
    pub fn is_whole(&self) -> bool {
        self.skip == 0
    }
}

const HEAD_BYTES: usize = 9;
/// Of a whole `RST_STREAM`.
const RESET_BYTES: usize = HEAD_BYTES + 4;
const RESET: u8 = 3;
/// As one that is well-formed begins (RFC 9113 §6.4).
const WHOLE_RESET: [u8; 4] = [0, 0, 4, RESET];
const PREFACE_BYTES: u32 = 24;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\
        \0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x80\
        \0\0\x03\x01\x05\x80\0\0\x01abc\
        \0\0\0\0\x01\0\0\0\x03\
        \0\0\x04\x03\0\0\0\0\x03\0\0\x01\x07\
        \0\0\x05\x03\0\0\0\0\x03\0\0\x01\x07\0\
        \0\0\0\0\0\0\0\0\x03";

    fn found(frames: &mut Frames, bytes: &[u8], room: usize) -> Vec<FrameHead> {
        let mut found = Vec::new();
        for piece in bytes.chunks(room) {
            frames.feed(piece, |head| found.push(head));
        }
        found
    }

    #[test]
    fn frames_are_found_in_any_pieces() {
        let expected = [
            FrameHead { length: 6, kind: Kind::Control(4), flags: 0, stream: 0, code: 0 },
            FrameHead { length: 3, kind: Kind::Headers, flags: 5, stream: 1, code: 0 },
            FrameHead { length: 0, kind: Kind::Data, flags: 1, stream: 3, code: 0 },
            FrameHead { length: 4, kind: Kind::Reset, flags: 0, stream: 3, code: 0x107 },
            FrameHead { length: 5, kind: Kind::Reset, flags: 0, stream: 3, code: 0 },
            FrameHead { length: 0, kind: Kind::Data, flags: 0, stream: 3, code: 0 },
        ];
        for room in [1, 2, 3, 9, 10, 24, 25, 1000] {
            let mut frames = Frames::of_client();
            assert_eq!(found(&mut frames, SENT, room), expected, "{room}");
            assert!(frames.is_whole());
        }
        let mut frames = Frames::of_server();
        assert_eq!(found(&mut frames, &SENT[24..], 7), expected);
    }

    #[test]
    fn a_frame_is_whole_with_its_last_byte() {
        let mut frames = Frames::of_server();
        found(&mut frames, b"\0\x01\0\x09\x04\0\0\0\x01", 9);
        assert!(!frames.is_whole());
        found(&mut frames, &[0; 255], 100);
        assert!(!frames.is_whole());
        found(&mut frames, &[0; 1], 1);
        assert!(frames.is_whole());
    }

    #[test]
    fn flags_mean_something_where_they_are_defined_alone() {
        let head = |kind, flags| FrameHead { length: 0, kind, flags, stream: 1, code: 0 };
        assert!(head(Kind::Data, 1).ends_stream() && head(Kind::Headers, 5).ends_stream());
        assert!(!head(Kind::Continuation, 1).ends_stream() && !head(Kind::Control(6), 1).ends_stream());
        assert!(head(Kind::Continuation, 4).ends_block() && head(Kind::Headers, 4).ends_block());
        assert!(!head(Kind::Data, 4).ends_block() && !head(Kind::Headers, 1).ends_block());
    }

    proptest::proptest! {
        /// However the bytes are cut, the frames are the same.
        #[test]
        fn pieces_do_not_matter(bytes: Vec<u8>, room in 1_usize..40) {
            let whole = found(&mut Frames::of_server(), &bytes, usize::MAX);
            proptest::prop_assert_eq!(found(&mut Frames::of_server(), &bytes, room), whole);
        }
    }
}
