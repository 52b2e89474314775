//! Log lines on stderr, and what is logged. What is said is decided where it happens.

use std::io::{self, IsTerminal};

use tracing::warn;
use tracing_subscriber::EnvFilter;

/// Environment variable that holds a filter when `--log` is not given.
const FILTER_VARIABLE: &str = "GATEHOUSE_LOG";

/// What is logged when nothing is asked for. Pingora logs each failed request at `error`, which the access log already has;
/// the others speak at `info` of what concerns only who debugs them; rustls warns of every client that asks for an address by name.
const DEFAULT_FILTER: &str = "info,pingora_proxy=off,pingora_core=error,pingora_pool=error,sqlx=warn,hyper=warn,hyper_util=warn,h2=warn,rustls=error,reqwest=warn";

/// Sends all log lines, those of the `log` crate too, to stderr: JSON, one object a line, when it is no terminal, else text.
///
/// `filter` (else `GATEHOUSE_LOG`) has tracing's filter syntax and is laid over the default `info`: `debug` makes us more talkative,
/// `debug,pingora_proxy=debug` Pingora as well. Parts that make no sense are left out, with a warning. Only the first call has an effect.
pub fn log_to_stderr(filter: Option<&str>) {
    let asked = filter.map(str::to_owned).or_else(|| std::env::var(FILTER_VARIABLE).ok()).unwrap_or_default();
    let (filter, faults) = filter_of(&asked);
    // Complaints about a closed stderr would go to the closed stderr, and panic.
    let builder =
        tracing_subscriber::fmt().with_writer(io::stderr).with_env_filter(filter).log_internal_errors(false);
    let installed = if io::stderr().is_terminal() {
        builder.with_ansi(std::env::var_os("NO_COLOR").is_none()).try_init()
    } else {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(true).try_init()
    };
    if installed.is_ok() {
        for fault in faults {
            warn!(part = fault.as_str(), "a part of the log filter is left out: it cannot be understood");
        }
    }
}

/// The default with `asked` laid over it, and the parts of `asked` that cannot be parsed.
fn filter_of(asked: &str) -> (EnvFilter, Vec<String>) {
    let mut filter = EnvFilter::new(DEFAULT_FILTER);
    let mut faults = Vec::new();
    for part in asked.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.parse() {
            Ok(directive) => filter = filter.add_directive(directive),
            Err(_) => faults.push(part.to_owned()),
        }
    }
    (filter, faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(asked: &str, contains: &[&str], faults: &[&str]) {
        let (filter, found) = filter_of(asked);
        let printed = filter.to_string();
        let parts: Vec<&str> = printed.split(',').collect();
        for part in contains {
            assert!(parts.contains(part), "{part} is missing in {printed}");
        }
        assert_eq!(found, faults);
    }

    #[test]
    fn a_bare_level_is_for_us_and_leaves_the_noise_out() {
        check("", &["info", "pingora_proxy=off"], &[]);
        check("debug", &["debug", "pingora_proxy=off", "sqlx=warn"], &[]);
    }

    #[test]
    fn a_named_target_overrides_its_default() {
        check("debug,pingora_proxy=debug", &["debug", "pingora_proxy=debug"], &[]);
    }

    #[test]
    fn what_cannot_be_parsed_is_reported_and_the_rest_kept() {
        check("service=trace, a=b=c", &["service=trace", "info"], &["a=b=c"]);
    }
}
