//! `Accept-Encoding` with its weights: never panics, offers only what there is, each once.
#![no_main]

use conf::Encoding;
use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

#[path = "../../../proxy/src/files/encoding.rs"]
#[expect(dead_code, reason = "the module as it stands in `proxy`; only its parser is called here")]
mod encoding;

use encoding::{Coding, acceptable};

// Lines of the input are lines of the field.
fuzz_target!(|bytes: &[u8]| {
    let values = bytes.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok());
    let headers: HeaderMap = values.map(|value| (ACCEPT_ENCODING, value)).collect();
    let available = [Encoding::Brotli, Encoding::Gzip];
    let offered = acceptable(&headers, &available);
    for (index, coding) in offered.iter().enumerate() {
        assert!(!offered[..index].contains(coding), "{offered:?}");
        match coding {
            Coding::Identity => {}
            Coding::Compressed(encoding) => assert!(available.contains(encoding), "{offered:?}"),
        }
    }
    let fewer = acceptable(&headers, &available[..1]);
    assert!(fewer.iter().all(|coding| offered.contains(coding)));
});
