//! `Range`: never panics, and every part lies inside the representation.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../../proxy/src/files/range.rs"]
mod range;

use range::{Selection, select};

fuzz_target!(|value: &str| {
    // No file is longer than the last: sizes are signed in the kernel.
    for size in [0, 1, 10, 1000, i64::MAX.unsigned_abs()] {
        let Selection::Parts(parts) = select(value, size) else { continue };
        assert!(!parts.is_empty());
        let mut total: u64 = 0;
        for part in parts {
            assert!(part.first <= part.last && part.last < size, "{part:?} of {size}");
            total = total.checked_add(part.length()).expect("no more than the representation");
        }
        assert!(total <= size);
    }
});
