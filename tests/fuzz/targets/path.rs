//! The normal form of a path (RFC 3986 §6.2.2): never panics, is stable, and has no dot segment left.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../../proxy/src/path.rs"]
mod path;

fuzz_target!(|path: &str| {
    let Ok(readings) = path::readings(path) else { return };
    let normal = readings.normal.as_ref();
    assert!(normal.starts_with('/'));
    assert!(!normal.split('/').any(|segment| segment == "." || segment == ".."), "{normal}");
    let again = path::readings(normal).expect("the normal form is a path");
    assert_eq!(again.normal, normal);
    assert!(readings.others.iter().all(|other| other.starts_with('/')));
    if !path::has_dot_segments(path) {
        let dots = |reading: &str| reading.split('/').any(|segment| segment == "." || segment == "..");
        assert!(!dots(path) && !readings.others.iter().any(|other| dots(other)), "{path}");
    }
});
