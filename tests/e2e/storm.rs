//! A storm: reloads every 200 ms between configurations that have little in common, and an upgrade of the executable every few
//! seconds, while clients of all kinds go on. Nobody may notice: every answer is complete and of one configuration, every
//! request has one line in that configuration's log, and no generation of the process leaves more behind than the first.
//!
//! Some seconds each, or what `STORM_SECONDS` says; `STORM_PROGRAM` names another executable than the one that Cargo built, such as
//! one of the release profile. `STORM_SECONDS=120 cargo e2e storm --nocapture` prints the numbers of proxy/README.md.

mod clients;
mod configurations;
mod driver;
mod exchange;
mod http2;
mod ledger;
mod processes;
mod tunnels;

use std::time::Duration;

use super::harness::number_from_environment;
use driver::{Storm, Weather};

#[test]
fn without_reloads_and_upgrades_all_is_well() {
    let report = Storm::new(Weather::Calm, Duration::from_secs(4)).rage();
    println!("{report}");
    report.expect_unharmed();
}

/// What the other tests of this module are worth: the same clients notice when the process is killed.
#[test]
fn a_killed_process_is_noticed() {
    let report = Storm::new(Weather::Kill, Duration::from_secs(4)).rage();
    println!("{report}");
    for kind in ["new, ", "long poll, ", "WebSocket message, ", "HTTP/2, "] {
        assert!(report.failures.iter().any(|failure| failure.contains(kind)), "not by {kind}\n{report}");
    }
}

#[test]
fn reloads_under_load_are_not_noticed() {
    let seconds = number_from_environment("STORM_SECONDS", 8);
    let report = Storm::new(Weather::Reloads, Duration::from_secs(seconds)).rage();
    println!("{report}");
    report.expect_unharmed();
    report.expect_no_leak();
}

#[test]
fn reloads_and_upgrades_under_load_are_not_noticed() {
    let seconds = number_from_environment("STORM_SECONDS", 20);
    let report = Storm::new(Weather::ReloadsAndUpgrades, Duration::from_secs(seconds)).rage();
    println!("{report}");
    report.expect_unharmed();
    report.expect_no_leak();
}
