//! Frames that cost us work and bring no request nearer to its answer, counted against the work that was done for the client. An
//! honest client stays far below: what it sends of them follows from requests and bodies, and those pay for it.

use std::time::{Duration, Instant};

use super::frames::{FrameHead, Frames, Kind};

/// How much of it one connection may send: as many at once, and as many again in each minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FloodLimits {
    /// Frames without content: `PING`, `SETTINGS`, `PRIORITY`, `WINDOW_UPDATE`, `RST_STREAM`, `CONTINUATION`, unknown ones, and `DATA`
    /// of a few bytes. An answer of ours pays for eight of them, a piece of its body for four.
    pub control_frames: u32,
    /// Streams that end by force, by the client or by us for what it did. Each answer pays for one.
    pub resets: u32,
}

/// What there was too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    /// [`FloodLimits::control_frames`].
    ControlFrames,
    /// [`FloodLimits::resets`].
    Resets,
}

/// Watches both directions of one connection.
#[derive(Debug)]
pub struct Watch {
    received: Frames,
    sent: Frames,
    block: Block,
    control_frames: Account,
    resets: Account,
    /// Streams that we refused and nobody has asked about.
    refused: u32,
    /// `DATA` frames that went to the client.
    pieces: u64,
    /// Bytes of `DATA` that came from it.
    body_bytes: u64,
    /// A `GOAWAY` went to the client and nobody has asked about it.
    goodbye: bool,
}

/// Where a client is with a header block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    /// Nothing has come yet but, perhaps, the preface.
    Preface,
    /// Not in one.
    None,
    /// In the middle.
    Open,
    /// In its last frame.
    Last,
}

/// A debt that is forgiven over time.
#[derive(Debug)]
struct Account {
    /// What one may owe, and what is forgiven in a minute.
    limit: u32,
    /// In units of which [`UNITS`] are one.
    owed: u64,
    /// Until when forgiveness has been counted.
    until: Instant,
}

impl Watch {
    /// A connection that begins at `now`.
    pub fn new(limits: FloodLimits, now: Instant) -> Self {
        Self {
            received: Frames::of_client(),
            sent: Frames::of_server(),
            block: Block::Preface,
            control_frames: Account { limit: limits.control_frames, owed: 0, until: now },
            resets: Account { limit: limits.resets, owed: 0, until: now },
            refused: 0,
            pieces: 0,
            body_bytes: 0,
            goodbye: false,
        }
    }

    /// Looks at bytes that came from the client.
    ///
    /// # Errors
    /// When there is too much of something; what has come is better not looked at any further.
    pub fn received(&mut self, bytes: &[u8], now: Instant) -> Result<(), Flood> {
        let Self { received, block, control_frames, resets, body_bytes, .. } = self;
        let mut flood = None;
        received.feed(bytes, |head| {
            *block = Block::after(head);
            if head.kind == Kind::Data {
                *body_bytes += u64::from(head.length);
            }
            let found = match head.kind {
                Kind::Reset => {
                    control_frames.charge(now, Flood::ControlFrames).and(resets.charge(now, Flood::Resets))
                }
                Kind::Control(_) | Kind::Continuation => control_frames.charge(now, Flood::ControlFrames),
                Kind::Data if head.length < SMALL_BYTES && !head.ends_stream() => {
                    control_frames.charge(now, Flood::ControlFrames)
                }
                Kind::Data | Kind::Headers => Ok(()),
            };
            flood = flood.or(found.err());
        });
        flood.map_or(Ok(()), Err)
    }

    /// Looks at bytes that go to the client.
    ///
    /// # Errors
    /// When the client makes us reset too many streams.
    pub fn sent(&mut self, bytes: &[u8], now: Instant) -> Result<(), Flood> {
        let Self { sent, control_frames, resets, refused, pieces, goodbye, .. } = self;
        let mut flood = None;
        sent.feed(bytes, |head| {
            *pieces += u64::from(head.kind == Kind::Data);
            match head.kind {
                Kind::Headers => {
                    control_frames.pay(ANSWER_PAYS);
                    resets.pay(1);
                }
                Kind::Data if head.length >= SMALL_BYTES => control_frames.pay(DATA_PAYS),
                // After an answer, because nobody reads the rest of the body.
                Kind::Reset if head.code == NO_ERROR => {}
                Kind::Reset => {
                    *refused += u32::from(head.code == REFUSED_STREAM);
                    flood = flood.or(resets.charge(now, Flood::Resets).err());
                }
                Kind::Control(GOAWAY) => *goodbye = true,
                // The client has to answer.
                Kind::Control(SETTINGS | PING) if head.flags & ACK == 0 => control_frames.pay(1),
                Kind::Data | Kind::Continuation | Kind::Control(_) => {}
            }
        });
        flood.map_or(Ok(()), Err)
    }

    /// How many streams were refused, because there were too many at a time, since this was last asked.
    pub fn take_refused(&mut self) -> u32 {
        std::mem::take(&mut self.refused)
    }

    /// Whether there was a `GOAWAY` in what was sent since this was last asked.
    pub fn take_goodbye(&mut self) -> bool {
        std::mem::take(&mut self.goodbye)
    }

    /// Bytes of bodies, with their padding, whose frames have begun to come from the client.
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// How many pieces of bodies went to the client.
    pub fn pieces_sent(&self) -> u64 {
        self.pieces
    }

    /// Something has begun that the client has to complete: the connection itself (RFC 9113 §3.4), or a header block.
    pub fn awaits_head(&self) -> bool {
        match self.block {
            Block::Preface | Block::Open => true,
            Block::Last => !self.received.is_whole(),
            Block::None => false,
        }
    }
}

impl Block {
    fn after(head: FrameHead) -> Self {
        match head.kind {
            Kind::Headers | Kind::Continuation if head.ends_block() => Self::Last,
            Kind::Headers | Kind::Continuation => Self::Open,
            Kind::Data | Kind::Reset | Kind::Control(_) => Self::None,
        }
    }
}

impl Account {
    fn charge(&mut self, now: Instant, flood: Flood) -> Result<(), Flood> {
        let passed = now.saturating_duration_since(self.until);
        if passed >= MINUTE {
            (self.owed, self.until) = (0, now);
        } else {
            let milliseconds = u64::from(passed.subsec_millis()) + 1000 * passed.as_secs();
            self.owed = self.owed.saturating_sub(u64::from(self.limit) * milliseconds);
            self.until += Duration::from_millis(milliseconds);
        }
        self.owed += UNITS;
        if self.owed > u64::from(self.limit) * UNITS {
            self.owed -= UNITS;
            return Err(flood);
        }
        Ok(())
    }

    fn pay(&mut self, count: u32) {
        self.owed = self.owed.saturating_sub(u64::from(count) * UNITS);
    }
}

/// RFC 9113 §6.5, §6.7, §6.8.
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
/// RFC 9113 §7.
const NO_ERROR: u32 = 0;
const REFUSED_STREAM: u32 = 7;
/// So that what a millisecond forgives is a whole number.
const UNITS: u64 = 60_000;
const MINUTE: Duration = Duration::from_secs(60);
/// `DATA` below this costs more to handle than it carries.
const SMALL_BYTES: u32 = 64;
/// An answer may be followed by acknowledgements, priorities, window updates and probes of the round trip.
const ANSWER_PAYS: u32 = 8;
/// Clients answer a piece of a body with a window update for the stream, one for the connection, and perhaps a `PING`.
const DATA_PAYS: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: FloodLimits = FloodLimits { control_frames: 60, resets: 6 };
    const HEADERS: u8 = 1;
    const RESET: u8 = 3;
    const DATA: u8 = 0;

    fn watch(now: Instant) -> Watch {
        let mut watch = Watch::new(LIMITS, now);
        watch.received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", now).unwrap();
        watch
    }

    fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        bytes.resize(9 + usize::from(length), 0);
        bytes
    }

    #[test]
    fn as_many_at_once_as_the_limit_and_as_many_in_a_minute() {
        let start = Instant::now();
        let mut watch = watch(start);
        let pings = frame(PING, 0, 8).repeat(60);
        assert_eq!(watch.received(&pings, start), Ok(()));
        assert_eq!(watch.received(&frame(PING, 0, 8), start), Err(Flood::ControlFrames));
        // One a second.
        for second in 1..1000 {
            let now = start + Duration::from_secs(second);
            assert_eq!(watch.received(&frame(PING, 0, 8), now), Ok(()), "{second}");
            assert_eq!(watch.received(&frame(PING, 0, 8), now), Err(Flood::ControlFrames));
        }
        let later = start + Duration::from_secs(10_000);
        assert_eq!(watch.received(&pings, later), Ok(()));
        assert_eq!(watch.received(&frame(PING, 0, 8), later), Err(Flood::ControlFrames));
    }

    #[test]
    fn what_carries_nothing_is_counted() {
        let now = Instant::now();
        let check = |bytes: &[u8], expected| {
            let mut watch = watch(now);
            assert_eq!(watch.received(bytes, now), expected, "{bytes:?}");
        };
        for kind in [2, 4, 5, 6, 7, 8, 9, 0x0c, 0xff] {
            check(&frame(kind, 0, 4).repeat(61), Err(Flood::ControlFrames));
            check(&frame(kind, 1, 0).repeat(60), Ok(()));
        }
        check(&frame(DATA, 0, 0).repeat(61), Err(Flood::ControlFrames));
        check(&frame(DATA, 0, 1).repeat(61), Err(Flood::ControlFrames));
        check(&frame(DATA, 0, 64).repeat(1000), Ok(()));
        check(&frame(DATA, 1, 0).repeat(1000), Ok(()));
        check(&frame(HEADERS, 5, 20).repeat(1000), Ok(()));
        check(&[frame(HEADERS, 5, 20), frame(RESET, 0, 4)].concat().repeat(6), Ok(()));
        check(&[frame(HEADERS, 5, 20), frame(RESET, 0, 4)].concat().repeat(7), Err(Flood::Resets));
    }

    #[test]
    fn answers_pay_for_what_comes_with_them() {
        let now = Instant::now();
        let mut watch = watch(now);
        for _ in 0..1000 {
            // A request that is cancelled in the middle of its answer.
            watch.received(&frame(HEADERS, 5, 20), now).unwrap();
            watch
                .sent(&[frame(HEADERS, 4, 20), frame(DATA, 0, 200), frame(DATA, 0, 200)].concat(), now)
                .unwrap();
            watch
                .received(&[frame(8, 0, 4).repeat(4), frame(PING, 0, 8), frame(RESET, 0, 4)].concat(), now)
                .unwrap();
        }
    }

    #[test]
    fn dribbled_windows_are_not_paid_for() {
        let now = Instant::now();
        let mut watch = watch(now);
        let dribbled = (0..100).try_for_each(|_| {
            watch.received(&frame(8, 0, 4), now)?;
            watch.sent(&frame(DATA, 0, 1), now)
        });
        assert_eq!(dribbled, Err(Flood::ControlFrames));
    }

    #[test]
    fn streams_that_we_have_to_reset_count_too() {
        let now = Instant::now();
        let mut watch = watch(now);
        let reset = |code| [&frame(RESET, 0, 4)[..12], &[code]].concat();
        assert_eq!(watch.sent(&[reset(7).repeat(4), reset(1).repeat(2)].concat(), now), Ok(()));
        assert_eq!(watch.sent(&reset(7), now), Err(Flood::Resets));
        assert_eq!((watch.take_refused(), watch.take_refused()), (5, 0));
        assert_eq!(watch.sent(&reset(0).repeat(100), now), Ok(()));
        for _ in 0..100 {
            assert_eq!(watch.sent(&[frame(HEADERS, 4, 9), reset(1)].concat(), now), Ok(()));
        }
    }

    #[test]
    fn nothing_is_saved_up() {
        let now = Instant::now();
        let mut watch = watch(now);
        watch.sent(&frame(HEADERS, 5, 9).repeat(1000), now).unwrap();
        assert_eq!(watch.received(&frame(RESET, 0, 4).repeat(7), now), Err(Flood::Resets));
    }

    #[test]
    fn a_head_is_awaited_from_its_first_frame_to_its_last_byte() {
        let now = Instant::now();
        let mut watch = Watch::new(LIMITS, now);
        let mut awaits = |bytes: &[u8]| {
            watch.received(bytes, now).unwrap();
            watch.awaits_head()
        };
        assert!(awaits(b"PRI * HTTP/2.0"));
        assert!(awaits(b"\r\n\r\nSM\r\n\r\n"));
        assert!(!awaits(&frame(4, 0, 0)));
        assert!(awaits(&frame(HEADERS, 1, 10)));
        assert!(awaits(&frame(9, 0, 10)));
        let last = frame(9, 4, 10);
        assert!(awaits(&last[..18]));
        assert!(!awaits(&last[18..]));
        assert!(!awaits(&frame(DATA, 0, 100)[..50]));
    }
}
