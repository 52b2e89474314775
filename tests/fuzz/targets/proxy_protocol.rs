//! PROXY protocol, versions 1 and 2: never panics, a prefix never contradicts the whole, what is
//! read can be written, additional fields included, and stays within its bounds.
#![no_main]

use accept::proxy_protocol::{Command, MAX_HEADER_BYTES, parse, write};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    // Fed in pieces, the result is the same.
    let pieces = (0..bytes.len().min(300)).map(|end| parse(&bytes[..end]));
    for early in pieces.filter(|result| *result != Ok(None)) {
        assert_eq!(early, whole);
    }
    if bytes.len() >= MAX_HEADER_BYTES {
        assert_ne!(whole, Ok(None));
    }
    let Ok(Some((header, taken))) = whole else { return };
    assert!(taken <= bytes.len().min(MAX_HEADER_BYTES));
    assert_eq!(header.source.is_some(), header.destination.is_some());
    if header.command == Command::Local {
        assert_eq!(header.source, None);
    }
    assert!(header.tlvs.others.iter().map(|(_, value)| value.len() + 3).sum::<usize>() < MAX_HEADER_BYTES);
    let written = write(header.version, header.source, header.destination, &header.tlvs);
    assert!(written.len() <= MAX_HEADER_BYTES);
    let (again, taken) = parse(&written).expect("what we write is valid").expect("and complete");
    assert_eq!((again.source, again.destination, taken), (header.source, header.destination, written.len()));
    // A header that has grown, because its addresses became IPv6, may have lost fields.
    if header.source.is_some() && written.len() + 64 < MAX_HEADER_BYTES {
        assert_eq!(again.tlvs, header.tlvs);
    }
});
