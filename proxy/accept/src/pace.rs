//! How slow a client may be: an account of time. Waiting for it goes down, what the client does makes it go up again, and
//! nobody can have more than at the beginning. So a pause is allowed now and then, a client above the rate is never at the
//! end of it, and one that does a little now and then is. Pure: the time is an argument, and counted only while the client
//! could have done something.

use std::time::Duration;

use tokio::time::Instant;

/// What is asked of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Time on the account at the beginning, and the most there can be.
    pub patience: Duration,
    /// Bytes for which a second is added. With 0 any byte fills the account: only silence is too slow.
    pub rate: u64,
}

/// The account of one client.
#[derive(Debug, Clone, Copy)]
pub struct PaceMeter {
    pace: Pace,
    left: Duration,
    waiting_since: Option<Instant>,
}

/// What a client did whose account is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slow {
    /// Nothing, for the whole time.
    Silent,
    /// Something now and then.
    Trickling,
}

impl Pace {
    /// How long a piece of so many bytes may take as a whole, where nobody can see how it goes.
    pub fn time_for(self, bytes: u64) -> Duration {
        self.patience
            .saturating_add(Duration::from_millis(bytes.saturating_mul(1000) / self.rate.max(SLOWEST)))
    }
}

/// In bytes per second: where a whole piece needs a deadline, and there is no bound.
const SLOWEST: u64 = 64;

impl PaceMeter {
    /// A full account; nobody waits yet.
    pub fn new(pace: Pace) -> Self {
        Self { pace, left: pace.patience, waiting_since: None }
    }

    /// The client is waited for, from now on if it was not before: when the account will be empty.
    pub fn wait(&mut self, now: Instant) -> Instant {
        *self.waiting_since.get_or_insert(now) + self.left
    }

    /// The client is not waited for any more.
    pub fn pause(&mut self, now: Instant) {
        if let Some(since) = self.waiting_since.take() {
            self.left = self.left.saturating_sub(now.saturating_duration_since(since));
        }
    }

    /// The client has sent or taken so many bytes.
    pub fn earn(&mut self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let earned = match self.pace.rate {
            0 => self.pace.patience,
            rate => Duration::from_millis(bytes.saturating_mul(1000) / rate),
        };
        self.left = self.left.saturating_add(earned).min(self.pace.patience);
    }

    /// Asks something else, with a full account.
    pub fn renew(&mut self, pace: Pace) {
        self.pace = pace;
        self.left = pace.patience;
    }

    /// Fills the account.
    pub fn refill(&mut self) {
        self.left = self.pace.patience;
    }

    /// From now on there is never more than this.
    pub fn shorten(&mut self, patience: Duration) {
        self.pace.patience = self.pace.patience.min(patience);
        self.left = self.left.min(patience);
    }

    /// Whether the client is waited for.
    pub fn is_waiting(&self) -> bool {
        self.waiting_since.is_some()
    }

    /// What the client did, if the account is empty now.
    pub fn verdict(&self, now: Instant) -> Option<Slow> {
        let waited = now.saturating_duration_since(self.waiting_since?);
        if waited < self.left {
            None
        } else if waited >= self.pace.patience {
            Some(Slow::Silent)
        } else {
            Some(Slow::Trickling)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time::{advance, sleep_until};

    use super::*;

    const PACE: Pace = Pace { patience: Duration::from_secs(60), rate: 512 };

    /// A client that does `bytes` every `seconds`; what it was cut off for, and after how many seconds, within an hour.
    fn check(pace: Pace, bytes: u64, seconds: u64) -> Option<(Slow, u64)> {
        let start = Instant::now();
        let mut meter = PaceMeter::new(pace);
        let mut now = start;
        while now < start + Duration::from_secs(3600) {
            let empty = meter.wait(now);
            let next = now + Duration::from_secs(seconds);
            if empty < next {
                return meter.verdict(empty).map(|slow| (slow, (empty - start).as_secs()));
            }
            meter.pause(next);
            meter.earn(bytes);
            now = next;
        }
        None
    }

    #[test]
    fn trickles_end_and_slow_clients_go_on() {
        assert_eq!(check(PACE, 1, 59), Some((Slow::Trickling, 60)));
        assert_eq!(check(PACE, 1, 1), Some((Slow::Trickling, 60)));
        assert_eq!(check(PACE, 256, 1), Some((Slow::Trickling, 119)), "at half the rate");
        assert_eq!(check(PACE, 512, 1), None, "at the rate");
        assert_eq!(check(PACE, 1024, 1), None);
        assert_eq!(check(PACE, 30 * 512, 30), None, "in lumps");
        assert_eq!(check(PACE, 1 << 30, 61), Some((Slow::Silent, 60)), "nothing is saved up");
    }

    #[test]
    fn a_piece_has_the_patience_and_the_time_at_the_rate() {
        let seconds = |rate| Pace { rate, ..PACE }.time_for(64 << 10).as_secs();
        assert_eq!((seconds(512), seconds(64 << 10)), (60 + 128, 61));
        assert_eq!(seconds(0), 60 + 1024, "slow, but not for ever");
    }

    #[test]
    fn without_a_rate_only_silence_is_too_slow() {
        let pace = Pace { rate: 0, ..PACE };
        assert_eq!(check(pace, 1, 59), None);
        assert_eq!(check(pace, 1, 61), Some((Slow::Silent, 60)));
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_waits_costs_nothing() {
        let mut meter = PaceMeter::new(PACE);
        meter.wait(Instant::now());
        advance(Duration::from_secs(50)).await;
        meter.pause(Instant::now());
        // The upstream is slow for an hour.
        advance(Duration::from_secs(3600)).await;
        assert_eq!(meter.verdict(Instant::now()), None);
        sleep_until(meter.wait(Instant::now())).await;
        assert_eq!(meter.verdict(Instant::now()), Some(Slow::Trickling));
        assert_eq!(meter.waiting_since.unwrap().elapsed(), Duration::from_secs(10));
    }

    #[test]
    fn patience_can_end_sooner() {
        let start = Instant::now();
        let mut meter = PaceMeter::new(PACE);
        meter.shorten(Duration::from_secs(10));
        meter.earn(1 << 30);
        assert_eq!(meter.wait(start), start + Duration::from_secs(10));
        meter.shorten(Duration::from_secs(20));
        assert_eq!(meter.wait(start), start + Duration::from_secs(10));
    }

    proptest! {
        #[test]
        fn the_account_is_never_above_its_beginning(steps in proptest::collection::vec((any::<u64>(), 0u64..100), 0..50)) {
            let mut meter = PaceMeter::new(PACE);
            let mut now = Instant::now();
            for (bytes, seconds) in steps {
                prop_assert!(meter.wait(now) <= now + PACE.patience);
                now += Duration::from_secs(seconds);
                meter.pause(now);
                meter.earn(bytes);
                prop_assert!(meter.left <= PACE.patience);
            }
        }
    }
}
