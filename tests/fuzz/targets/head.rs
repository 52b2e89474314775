//! The strict reading of an HTTP/1 head: never panics, does not depend on how the bytes arrive, and what it takes is read the
//! same by the engine's parser.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../../proxy/src/gate/head.rs"]
mod head;

use head::{Body, HeadFault, HeadLimits, Scan};

fuzz_target!(|bytes: &[u8]| {
    let whole = Scan::default().end(bytes);
    let mut parts = Scan::default();
    let mut found = Ok(None);
    for end in 1..=bytes.len() {
        found = parts.end(&bytes[..end]);
        if found != Ok(None) {
            break;
        }
    }
    // In pieces a fault may be found before the end; an end is the same one.
    if let Ok(Some(_)) = whole {
        assert!(found == whole || matches!(found, Err(HeadFault::Malformed(_))));
    }
    let _ = head::request_of(bytes);
    let Ok(Some(end)) = whole else { return };
    assert!(parts.has_request_line() || found.is_err());
    let Ok(body) = head::read(&bytes[..end], HeadLimits::ENGINE) else { return };

    let mut fields = [httparse::EMPTY_HEADER; HeadLimits::ENGINE.fields];
    let mut request = httparse::Request::new(&mut fields);
    let parsed = request.parse(bytes).expect("the engine takes it too");
    assert_eq!(parsed, httparse::Status::Complete(end), "and ends it there");
    let (method, target) = head::request_of(bytes);
    assert_eq!(request.method.map(str::as_bytes), Some(method));
    assert_eq!(request.path.map(str::as_bytes), Some(target));
    let values = |name: &str| {
        let fields = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        fields.map(|field| field.value).collect::<Vec<_>>()
    };
    match body {
        Body::Unsaid => {
            assert!(values("content-length").is_empty() && values("transfer-encoding").is_empty())
        }
        Body::Length(length) => {
            let [value] = values("content-length")[..] else { panic!("one length") };
            assert_eq!(head::length_of(value), Ok(length));
            assert!(values("transfer-encoding").is_empty());
        }
        Body::Chunked => {
            let [value] = values("transfer-encoding")[..] else { panic!("one coding") };
            assert!(value.eq_ignore_ascii_case(b"chunked") && request.version == Some(1));
            assert!(values("content-length").is_empty());
        }
    }
    assert!(values("host").len() < 2);
});
