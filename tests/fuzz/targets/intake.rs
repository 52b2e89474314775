//! What a client sends over one HTTP/1 connection, cut into requests: never panics, does not depend on how the bytes arrive nor
//! on how much is taken at a time, hands out every byte once and in order, and holds no more than it may.
//! The input: how the bytes are cut (one byte), then the bytes.
#![no_main]

use std::convert::identity;

use libfuzzer_sys::fuzz_target;
use tokio::io::ReadBuf;

mod error {
    use crate::gate::body::BodyFault;
    use crate::gate::head::HeadFault;

    /// As much of the edge's own as the intake knows.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Fault {
        Head(HeadFault),
        Body(BodyFault),
        HeadTooLarge,
        TargetTooLong,
    }

    impl From<HeadFault> for Fault {
        fn from(fault: HeadFault) -> Self {
            Self::Head(fault)
        }
    }

    impl From<BodyFault> for Fault {
        fn from(fault: BodyFault) -> Self {
            Self::Body(fault)
        }
    }
}

mod gate {
    pub(crate) use crate::head::HeadLimits;
    pub(crate) use crate::{body, head};
}

#[path = "../../../proxy/src/gate/body.rs"]
mod body;
#[path = "../../../proxy/src/gate/head.rs"]
#[expect(dead_code, reason = "only what the intake needs")]
mod head;
#[path = "../../../proxy/src/listener/intake.rs"]
#[expect(dead_code, reason = "only what a stream without an engine needs")]
mod intake;

use error::Fault;
use head::HeadLimits;
use intake::{Intake, IntakeLimits};

/// What the engine gets of the bytes: the end of each request, and the fault that ended all.
#[derive(Debug, Default, PartialEq, Eq)]
struct Served {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    fault: Option<Fault>,
}

/// Sends `pieces` of the bytes to an engine that takes at most `room` at a time.
fn serve(pieces: &[&[u8]], room: usize) -> Served {
    let head = HeadLimits { target: 300, fields: 20 };
    let mut intake = Intake::new(IntakeLimits { head_size: HEAD_SIZE, head, beside: 200 });
    let mut served = Served::default();
    let mut space = vec![0; room];
    for piece in pieces.iter().flat_map(|piece| piece.chunks(room)) {
        let mut buffer = ReadBuf::new(&mut space);
        buffer.put_slice(piece);
        let mut given = intake.take(&mut buffer, 0);
        loop {
            served.bytes.extend_from_slice(buffer.filled());
            if intake.is_at_rest() {
                served.ends.push(served.bytes.len());
                intake.begin();
            } else if given == Ok(false) {
                break;
            }
            if let Err(fault) = given {
                served.fault = Some(fault);
                return served;
            }
            buffer = ReadBuf::new(&mut space);
            given = intake.give(&mut buffer);
        }
        assert!(intake.held().len() <= HEAD_SIZE + room, "{} bytes are held", intake.held().len());
    }
    served
}

fuzz_target!(|input: &[u8]| {
    let Some((cut, bytes)) = input.split_first() else { return };
    let whole = serve(&[bytes], bytes.len().max(1));
    assert!(bytes.starts_with(&whole.bytes) && whole.ends.is_sorted_by(|a, b| a < b));
    // One request is not split in two, nor two taken for one, by anything that happens on the way.
    let each: Vec<&[u8]> = bytes.chunks(1).collect();
    let halves: Vec<&[u8]> =
        bytes.split_at_checked(usize::from(*cut)).map_or(vec![bytes], |(a, b)| vec![a, b]);
    for (pieces, room) in [(each, HEAD_SIZE), (halves, HEAD_SIZE), (vec![bytes], usize::from(*cut).max(1))] {
        let parts = serve(&pieces, room);
        let common = whole.ends.len().min(parts.ends.len());
        assert_eq!(parts.ends[..common], whole.ends[..common]);
        let both = [&whole, &parts].map(|served| served.fault.is_some());
        if !both.into_iter().any(identity) {
            assert_eq!(parts, whole);
        }
        // In pieces a fault may be seen earlier, but not missed: both end with one then, at the same request.
        assert_eq!((both[0], whole.ends.len()), (both[1], parts.ends.len()), "{whole:?} {parts:?}");
    }
});

const HEAD_SIZE: usize = 1024;
