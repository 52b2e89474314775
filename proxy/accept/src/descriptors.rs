//! File descriptors of the process: as many as the system lets us have, and how many connections that is enough for.

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

/// At most `wanted` connections, and no more than there are descriptors for, beside what everything else needs. When that is less,
/// it is said in the log; `key` is where the number stands in the configuration.
pub fn affordable(key: &str, wanted: usize) -> usize {
    let limit = limit().map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let admitted = connections(wanted, limit);
    if admitted < wanted {
        let needed = wanted.saturating_mul(EACH).saturating_add(RESERVED);
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

/// What `limit` descriptors are enough for, at most `wanted`, at least one.
fn connections(wanted: usize, limit: usize) -> usize {
    wanted.min((limit.saturating_sub(RESERVED) / EACH).max(1))
}

/// The client's, the upstream's, another upstream's that waits for its next request, and the other end of it when the auth
/// service in this process is the upstream. So the edge and the auth service may both fill up.
const EACH: usize = 4;
/// Standard streams, runtimes, sockets that listen, logs, files that are served, the database, Synapse, the control socket, and the sockets
/// of a successor.
const RESERVED: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_what_they_need() {
        let check = |wanted, limit, expected| assert_eq!(connections(wanted, limit), expected);
        check(10_000, 524_288, 10_000);
        check(10_000, usize::MAX, 10_000);
        check(10_000, 1024, 224);
        check(200, 1024, 200);
        check(10_000, 256, 32);
        check(10_000, 20, 1);
    }
}
