//! Background work on our own database: writing activity down, deleting what has expired.

use std::time::Duration;

use tokio::sync::watch;

use crate::error::Chain;
use crate::state::{SharedState, State};
use crate::storage::cleanup::{Expired, delete_batch};

/// Runs until `stop`, then writes down the last activity. Each round works with the state of its moment, always of the same database.
pub async fn run(current: watch::Receiver<SharedState>, mut stop: watch::Receiver<bool>) {
    let mut rounds = 0_u32;
    loop {
        let stopped = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => true,
            () = tokio::time::sleep(ROUND) => false,
        };
        let state = current.borrow().clone();
        flush(&state).await;
        if stopped {
            return;
        }
        // The first clean-up comes soon after the start, for machines that are switched off at night.
        if rounds.is_multiple_of(ROUNDS_PER_CLEANUP) {
            clean_up(&state).await;
        }
        rounds = rounds.wrapping_add(1);
    }
}

/// Deletes what has expired, at most some thousand rows of each kind.
pub async fn clean_up(state: &State) {
    let now = state.clock.now();
    for (what, counter) in Expired::ALL.into_iter().zip(&state.metrics.expired) {
        let before = now.minus(kept(what));
        let mut deleted = 0;
        for _ in 0..BATCHES {
            match delete_batch(&state.storage, what, before).await {
                Ok((rows, more)) => {
                    deleted += rows;
                    if !more {
                        break;
                    }
                }
                Err(error) => {
                    tracing::warn!(
                        table = what.name(),
                        error = %Chain(&error),
                        "clean-up failed"
                    );
                    break;
                }
            }
        }
        counter.add(deleted);
        if deleted > 0 {
            tracing::debug!(table = what.name(), deleted, "expired rows deleted");
        }
    }
}

async fn flush(state: &State) {
    if let Err(error) = state.activity.flush(&state.storage).await {
        tracing::warn!(error = %Chain(&error), "activity could not be written down");
    }
}

/// How long rows are kept after they expired.
fn kept(what: Expired) -> Duration {
    match what {
        // Long enough to tell a client that a refresh would help; the last one of a session stays anyway. A client makes one every few
        // minutes.
        Expired::AccessTokens => Duration::from_secs(3600),
        // A copy that is used later than this is refused without ending the session.
        Expired::RefreshTokens => DAY,
        Expired::LoginTokens | Expired::RateLimits => Duration::from_secs(60),
        // For people who look at where they were logged in.
        Expired::Sessions => 30 * DAY,
    }
}

const ROUND: Duration = Duration::from_secs(30);
const ROUNDS_PER_CLEANUP: u32 = 10;
const BATCHES: usize = 20;
const DAY: Duration = Duration::from_secs(86_400);
