//! From the path of a request to the name of a file: never panics, and the name never leaves its folder.
#![no_main]

use std::os::unix::ffi::OsStrExt as _;
use std::path::Component;

use libfuzzer_sys::fuzz_target;

#[path = "../../../proxy/src/files/path.rs"]
mod path;

fuzz_target!(|normal_path: &str| {
    for prefix in ["/", "/assets/", "/assets"] {
        let _ = path::is_page(prefix, normal_path);
        let folder = path::folder(prefix, normal_path);
        assert!(folder.is_none_or(|name| name.components().all(|part| matches!(part, Component::Normal(_)))));
        let Some(name) = path::relative(prefix, normal_path) else { continue };
        assert!(normal_path.starts_with(prefix));
        for component in name.components() {
            let Component::Normal(segment) = component else { panic!("{name:?} leaves its folder") };
            assert!(!segment.as_bytes().starts_with(b"."), "{name:?} is hidden");
            assert!(!segment.as_bytes().contains(&0));
        }
        assert!(name.components().next().is_some());
    }
});
