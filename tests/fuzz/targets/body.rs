//! The end of a chunked body: never panics, does not depend on how the bytes arrive, and every chunk that it takes is one to
//! the engine's parser, of the same size.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../../proxy/src/gate/body.rs"]
mod body;
#[path = "../../../proxy/src/gate/head.rs"]
#[expect(dead_code, reason = "only what a body has to know of its head")]
mod head;

use body::Remaining;
use head::Body;

fuzz_target!(|bytes: &[u8]| {
    let mut whole = Remaining::new(Body::Chunked, BESIDE);
    let taken = whole.take(bytes);
    let mut parts = Remaining::new(Body::Chunked, BESIDE);
    let mut total = Ok(0);
    for byte in bytes {
        match parts.take(&[*byte]) {
            Ok(count) => total = total.map(|total| total + count),
            Err(fault) => {
                total = Err(fault);
                break;
            }
        }
    }
    assert_eq!(total, taken);
    let Ok(taken) = taken else { return };
    assert_eq!(parts, whole);
    if !whole.is_none() {
        assert_eq!(taken, bytes.len());
        return;
    }
    let mut rest = &bytes[..taken];
    loop {
        let Ok(httparse::Status::Complete((start, size))) = httparse::parse_chunk_size(rest) else {
            panic!("no chunk to the engine: {rest:?}")
        };
        rest = &rest[start..];
        let size = usize::try_from(size).expect("fits");
        if size == 0 {
            // The first empty line ends the trailers.
            let end =
                if rest.starts_with(b"\r\n") { 2 } else { find(rest, b"\r\n\r\n").expect("an end") + 4 };
            assert_eq!(end, rest.len());
            return;
        }
        assert_eq!(&rest[size..size + 2], b"\r\n");
        rest = &rest[size + 2..];
    }
});

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// Small enough for the fuzzer to come to it.
const BESIDE: u32 = 64;
