//! When a failed job is tried again. Pure.

use std::time::Duration;

/// After the first failure.
const FIRST: Duration = Duration::from_secs(1);
/// At most: Synapse hears of things within minutes of its return.
const LONGEST: Duration = Duration::from_secs(300);

/// The wait after a job has failed `attempts` + 1 times: 1 s, doubled each time up to 5 min, then 20 % more or less as `random` says,
/// so that jobs that failed together do not come back together.
pub(super) fn delay(attempts: u32, random: u64) -> Duration {
    let doubled = FIRST.saturating_mul(2_u32.saturating_pow(attempts.min(16))).min(LONGEST);
    let percent = 80 + u32::try_from(random % 41).unwrap_or(0);
    doubled * percent / 100
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_doubles_up_to_five_minutes() {
        for (attempts, secs) in [(0, 1), (1, 2), (4, 16), (8, 256), (9, 300), (1000, 300)] {
            assert_eq!(delay(attempts, 20), Duration::from_secs(secs), "{attempts}");
        }
    }

    proptest! {
        #[test]
        fn it_stays_within_a_fifth(attempts: u32, random: u64) {
            let plain = delay(attempts, 20);
            let jittered = delay(attempts, random);
            prop_assert!(jittered >= plain * 8 / 10 && jittered <= plain * 12 / 10);
        }
    }
}
