//! Where the frames of an HTTP/2 connection begin, and what is too much of them: never panics, does not depend on how the bytes
//! arrive, and agrees with a reading of the whole at once.
#![no_main]

use std::time::Instant;

use accept::http2::{FloodLimits, FrameHead, Frames, Kind, Watch};
use libfuzzer_sys::fuzz_target;

/// RFC 9113 §4.1, all bytes being there.
fn frames(mut bytes: &[u8]) -> Vec<(u32, u8, u8, u32)> {
    let mut found = Vec::new();
    while let Some((&[l1, l2, l3, kind, flags, s1, s2, s3, s4], rest)) = bytes.split_first_chunk() {
        let length = u32::from_be_bytes([0, l1, l2, l3]);
        if (kind, length) == (3, 4) && rest.len() < 4 {
            // An `RST_STREAM` is told with its reason.
            break;
        }
        found.push((length, kind, flags, u32::from_be_bytes([s1, s2, s3, s4]) & 0x7fff_ffff));
        bytes = rest.get(length as usize..).unwrap_or_default();
    }
    found
}

fn told(head: FrameHead) -> (u32, u8, u8, u32) {
    let kind = match head.kind {
        Kind::Data => 0,
        Kind::Headers => 1,
        Kind::Reset => 3,
        Kind::Continuation => 9,
        Kind::Control(other) => other,
    };
    (head.length, kind, head.flags, head.stream)
}

fuzz_target!(|input: &[u8]| {
    let Some((cut, bytes)) = input.split_first() else { return };
    let expected = frames(bytes.get(PREFACE_BYTES..).unwrap_or_default());
    let sizes = [bytes.len().max(1), 1, usize::from(*cut).max(1)];
    let limits = FloodLimits { control_frames: 3, resets: 2 };
    let now = Instant::now();
    let mut verdicts = Vec::new();
    for size in sizes {
        let (mut counted, mut found) = (Frames::of_client(), Vec::new());
        let mut watch = Watch::new(limits, now);
        for piece in bytes.chunks(size) {
            counted.feed(piece, |head| found.push(told(head)));
        }
        assert_eq!(found, expected);
        let verdict = bytes.chunks(size).try_for_each(|piece| watch.received(piece, now));
        let awaits = verdict.is_ok().then(|| watch.awaits_head());
        // What we send has no preface, and pays or is charged.
        let sent = bytes.chunks(size).try_for_each(|piece| watch.sent(piece, now));
        verdicts.push((verdict, awaits, verdict.is_ok().then_some(sent)));
    }
    assert!(verdicts.windows(2).all(|pair| pair[0] == pair[1]), "{verdicts:?}");
});

const PREFACE_BYTES: usize = 24;
