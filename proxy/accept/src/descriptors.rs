//! File descriptors of the process: as many as the system lets us have, and how many connections that is enough for.

use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one, as nginx's `worker_rlimit_nofile` and HAProxy do: the soft one is 1024 nearly everywhere, for
/// programs that use select(2). To be called once, at the start.
pub fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(error = %std::io::Error::from(error), soft = current, hard = maximum, "cannot have more file descriptors");
    }
}

/// As many descriptors as the process may have open; `None` for no limit.
pub fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Somebody in this process who accepts connections, and with whom others share the descriptors.
#[derive(Debug)]
pub struct Share {
    each: usize,
}

impl Share {
    /// For somebody who needs up to `each` descriptors for one connection.
    pub fn new(each: usize) -> Self {
        CLAIMED.fetch_add(each, Ordering::Relaxed);
        Self { each }
    }

    /// At most `wanted` connections, and no more than there are descriptors for when all who share them admit as many, beside what
    /// everything else needs. When that is less, it is said in the log; `key` is where the number stands in the configuration.
    pub fn affordable(&self, key: &str, wanted: usize) -> usize {
        let limit = limit().map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let each = CLAIMED.load(Ordering::Relaxed).max(self.each);
        let admitted = connections(wanted, limit, each);
        if admitted < wanted {
            let needed = wanted.saturating_mul(each).saturating_add(RESERVED);
            tracing::warn!(
                key,
                configured = wanted,
                admitted,
                descriptors = limit,
                needed,
                "fewer connections than configured are admitted: raise the limit of open files (LimitNOFILE= of the unit, or ulimit -n)"
            );
        }
        admitted
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        CLAIMED.fetch_sub(self.each, Ordering::Relaxed);
    }
}

/// What `limit` descriptors are enough for, at most `wanted`, at least one.
fn connections(wanted: usize, limit: usize, each: usize) -> usize {
    wanted.min((limit.saturating_sub(RESERVED) / each.max(1)).max(1))
}

/// What all shares need together for one connection each. The limit is one of the process too.
static CLAIMED: AtomicUsize = AtomicUsize::new(0);
/// Standard streams, runtimes, sockets that listen, logs, files that are served, the database, Synapse, the control socket, and the sockets
/// of a successor.
const RESERVED: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_what_they_need() {
        let check = |wanted, limit, each, expected| assert_eq!(connections(wanted, limit, each), expected);
        check(10_000, 524_288, 4, 10_000);
        check(10_000, usize::MAX, 4, 10_000);
        check(10_000, 1024, 4, 224);
        check(10_000, 1024, 1, 896);
        check(200, 1024, 4, 200);
        check(10_000, 256, 3, 42);
        check(10_000, 20, 3, 1);
    }

    #[test]
    fn who_is_gone_has_no_share() {
        let edge = Share::new(3);
        drop(Share::new(1));
        assert_eq!(edge.affordable("x", 1), 1);
        assert_eq!(CLAIMED.load(Ordering::Relaxed), 3);
    }
}
