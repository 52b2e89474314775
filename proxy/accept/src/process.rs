//! What Prometheus's own libraries tell of a process, under the same names, from `/proc` (proc(5)); and the version that runs.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};

use crate::descriptors;
use crate::exposition::Exposition;

/// What `/proc/self/stat` says, in the kernel's units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    /// Of the processor, in ticks.
    ticks: u64,
    threads: u64,
    /// In ticks since the system was started.
    start: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

/// Writes everything about the process; its names have no prefix. What the system does not tell is left out.
pub fn write(out: &mut Exposition) {
    out.unprefixed(|out| {
        out.gauges("gatehouse_build_info", "1; the version is in the label.", |family| {
            family.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
        });
        if let Some(limit) = descriptors::limit() {
            out.gauge("process_max_fds", "File descriptors that may be open.", limit);
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // The one that reads them is among them.
            let open = open.count().saturating_sub(1);
            out.gauge("process_open_fds", "File descriptors that are open.", open);
        }
        let Some(stat) = read_stat() else { return };
        let tick = clock_ticks_per_second();
        let seconds = |ticks: u64| {
            let hundredths = ticks.saturating_mul(100) / tick.max(1);
            format!("{}.{:02}", hundredths / 100, hundredths % 100)
        };
        out.counter("process_cpu_seconds_total", "Time of the processor taken.", seconds(stat.ticks));
        let resident = stat.resident_pages.saturating_mul(page_size() as u64);
        out.gauge("process_resident_memory_bytes", "Memory in use.", resident);
        out.gauge("process_virtual_memory_bytes", "Addresses in use.", stat.virtual_bytes);
        out.gauge("process_threads", "Threads.", stat.threads);
        if let Some(boot) = boot_time() {
            let start = seconds(boot.saturating_mul(tick).saturating_add(stat.start));
            out.gauge("process_start_time_seconds", "When the process was started, since 1970.", start);
        }
    });
}

fn read_stat() -> Option<Stat> {
    parse_stat(&fs::read_to_string("/proc/self/stat").ok()?)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name of the program comes second, in brackets, and may contain anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        ticks: field(14)?.saturating_add(field(15)?),
        threads: field(20)?,
        start: field(22)?,
        virtual_bytes: field(23)?,
        resident_pages: field(24)?,
    })
}

/// When the system was started, in seconds since 1970.
fn boot_time() -> Option<u64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_behind_the_name() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 1234 5678 910 18446744073709551615";
        let expected = Stat { ticks: 300, threads: 9, start: 1234, virtual_bytes: 5678, resident_pages: 910 };
        assert_eq!(parse_stat(text), Some(expected));
        assert_eq!(parse_stat("7 (a"), None);
        assert_eq!(parse_stat("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_is_known() {
        let mut out = Exposition::new("x_");
        write(&mut out);
        let text = out.into_text();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            line.unwrap_or_else(|| panic!("{name} is missing in {text}")).parse().unwrap()
        };
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_start_time_seconds") > 1.7e9);
        assert!(value("process_threads") >= 1.0);
    }
}
