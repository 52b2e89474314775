//! Configuration files: whatever the text, loading ends with a configuration or with a report that can be printed.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::SystemTime;

use libfuzzer_sys::fuzz_target;

static FILE: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("gatehouse-fuzz-{}.yaml", std::process::id())));

fuzz_target!(|text: &[u8]| {
    fs::write(&*FILE, text).expect("the temporary folder takes a file");
    match conf::load_at(&[FILE.clone()], SystemTime::UNIX_EPOCH) {
        Ok(loaded) => {
            assert!(!loaded.effective.is_empty());
            let _ = loaded.warnings.to_string();
        }
        Err(report) => assert!(!report.to_string().is_empty()),
    }
});
