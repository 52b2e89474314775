//! What an administrator has to see in the log without being flooded: a line when it begins, one a minute with a number while
//! it goes on, and one when it is over.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use crate::acceptor::Refused;
use crate::connection::Remote;
use crate::limits::TooMany;
use crate::proxy_protocol::ProxyHeaderError;

/// One kind of trouble, of all listeners that share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Alarm(Arc<AtomicU64>);

/// What is to be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// It happened for the first time.
    Begun,
    /// It happened so often again in the last interval.
    GoesOn(u64),
    /// It did not happen in the last interval.
    Over,
}

/// The alarms of listeners that share their limits.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    total: Alarm,
    address: Alarm,
    proxy_header: Alarm,
    shortage: Alarm,
}

impl Alarm {
    /// It has happened. Must be called within a runtime.
    pub(crate) fn ring(&self, report: impl Fn(News) + Send + 'static) {
        if self.0.fetch_add(1, Ordering::Relaxed) > 0 {
            return;
        }
        report(News::Begun);
        let Self(times) = self.clone();
        tokio::spawn(async move {
            loop {
                sleep(INTERVAL).await;
                // One stands for the alarm that is on.
                match times.swap(1, Ordering::Relaxed).saturating_sub(1) {
                    0 if times.compare_exchange(1, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok() => {
                        return report(News::Over);
                    }
                    0 => {}
                    again => report(News::GoesOn(again)),
                }
            }
        });
    }
}

impl Alarms {
    /// A connection was refused because there are too many.
    pub(crate) fn too_many(&self, limit: TooMany, listener: &Arc<str>, remote: Remote) {
        let (alarm, limit, reason) = match limit {
            TooMany::Total => (&self.total, "limits.max_connections", "too many are open"),
            TooMany::Address => {
                (&self.address, "limits.max_connections_per_ip", "too many of one address are open")
            }
        };
        let listener = listener.clone();
        alarm.ring(move |news| match news {
            News::Begun => {
                tracing::warn!(limit, reason, %listener, %remote, "connections are refused");
            }
            News::GoesOn(times) => tracing::warn!(limit, reason, times, "connections are refused"),
            News::Over => tracing::info!(limit, "connections are not refused any more"),
        });
    }

    /// A connection was refused before HTTP. Only what a balancer of one's own does wrong is worth a line: anybody can
    /// begin a bad handshake, and balancers open connections to see whether we live.
    pub(crate) fn refused(&self, refused: &Refused, listener: &Arc<str>, remote: Remote) {
        if !is_of_balancer(refused) {
            return;
        }
        let (listener, reason) = (listener.clone(), refused.to_string());
        self.proxy_header.ring(move |news| match news {
            News::Begun => tracing::warn!(%listener, %remote, reason, "PROXY headers are refused"),
            News::GoesOn(times) => tracing::warn!(times, "PROXY headers are refused"),
            News::Over => tracing::info!("PROXY headers are not refused any more"),
        });
    }

    /// The system gave no connection.
    pub(crate) fn shortage(&self, error: &dyn fmt::Display, listener: &Arc<str>) {
        let (listener, error) = (listener.clone(), error.to_string());
        self.shortage.ring(move |news| match news {
            News::Begun => tracing::error!(%listener, error, "connections have to wait: cannot accept"),
            News::GoesOn(times) => tracing::error!(times, error, "connections have to wait: cannot accept"),
            News::Over => tracing::info!("connections are accepted again"),
        });
    }
}

fn is_of_balancer(refused: &Refused) -> bool {
    match refused {
        Refused::Untrusted
        | Refused::Header(
            ProxyHeaderError::Missing
            | ProxyHeaderError::TooLong
            | ProxyHeaderError::Malformed(_)
            | ProxyHeaderError::Checksum,
        ) => true,
        Refused::Closed
        | Refused::Read(_)
        | Refused::HeaderDeadline
        | Refused::Tls(_)
        | Refused::TlsDeadline => false,
    }
}

/// Often enough to follow it, and a few kilobytes of log an hour at most.
const INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_a_line_a_minute_and_its_end_is_told() {
        let (alarm, said) = (Alarm::default(), Arc::new(Mutex::new(Vec::new())));
        let ring = || {
            let said = said.clone();
            alarm.ring(move |news| said.lock().unwrap().push(news));
        };
        let pass = async || {
            advance(INTERVAL + Duration::from_millis(1)).await;
            tokio::task::yield_now().await;
        };
        (0..1000).for_each(|_| ring());
        assert_eq!(*said.lock().unwrap(), [News::Begun]);
        tokio::task::yield_now().await;
        pass().await;
        (0..5).for_each(|_| ring());
        pass().await;
        pass().await;
        pass().await;
        ring();
        assert_eq!(
            *said.lock().unwrap(),
            [News::Begun, News::GoesOn(999), News::GoesOn(5), News::Over, News::Begun]
        );
    }
}
