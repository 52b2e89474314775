//! Maintenance mode: what is told instead of asking an upstream, kept in a file so that it survives a restart and can be switched
//! while the edge runs. The file is in [`file`], noticing its changes in [`watch`]; who asks is answered in `phases`.
//!
//! Only requests for an upstream are concerned: files, fixed answers, redirects and the admin sockets go on as ever, and what is
//! in flight finishes.

mod file;
mod watch;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use ipnet::IpNet;

pub use file::{StateError, StateFile};
pub(crate) use watch::Watcher;

/// What is said while the mode is on, and to whom not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    message: String,
    retry_after: Duration,
    allow: Vec<IpNet>,
    since: SystemTime,
}

/// Why a notice cannot be given like this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoticeError {
    /// Nothing but white space.
    #[error("the message is empty")]
    Empty,
    /// More than [`LONGEST_MESSAGE`] characters.
    #[error("the message has {0} characters, at most {LONGEST_MESSAGE} are allowed")]
    TooLong(usize),
    /// A line break or another control character.
    #[error("the message has to be one line without control characters")]
    ControlCharacter,
    /// Not from a second to 30 days.
    #[error("clients can be told to come back after 1s to 30d, not later or sooner")]
    RetryAfter,
}

impl Notice {
    /// A notice with `message` (one line, at most [`LONGEST_MESSAGE`] characters; [`DEFAULT_MESSAGE`] if there is none). Clients in
    /// `allow` are served as ever; the rest may ask again after `retry_after`, 1 s to 30 days.
    ///
    /// # Errors
    /// [`NoticeError`] for a message or a time outside these bounds.
    pub fn new(
        message: Option<&str>,
        retry_after: Duration,
        allow: Vec<IpNet>,
        since: SystemTime,
    ) -> Result<Self, NoticeError> {
        let message = message.map_or(DEFAULT_MESSAGE, str::trim);
        if message.is_empty() {
            return Err(NoticeError::Empty);
        }
        if message
            .chars()
            .any(|character| character.is_control() || matches!(character, '\u{2028}' | '\u{2029}'))
        {
            return Err(NoticeError::ControlCharacter);
        }
        match message.chars().count() {
            length if length > LONGEST_MESSAGE => return Err(NoticeError::TooLong(length)),
            _ => {}
        }
        if !RETRY_AFTER.contains(&retry_after) {
            return Err(NoticeError::RetryAfter);
        }
        Ok(Self { message: message.to_owned(), retry_after, allow, since })
    }

    /// What everybody else is told.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// When to ask again.
    pub fn retry_after(&self) -> Duration {
        self.retry_after
    }

    /// Networks that are served as ever. Empty: nobody.
    pub fn allow(&self) -> &[IpNet] {
        &self.allow
    }

    /// When the mode was switched on.
    pub fn since(&self) -> SystemTime {
        self.since
    }

    /// Whether this client is served as ever; an unknown one is not.
    fn lets_pass(&self, client: Option<IpAddr>) -> bool {
        client.is_some_and(|ip| self.allow.iter().any(|network| network.contains(&ip)))
    }
}

/// The mode as all workers see it. Reading it costs a request one atomic load.
#[derive(Debug, Default)]
pub(crate) struct Maintenance {
    notice: ArcSwapOption<Notice>,
}

impl Maintenance {
    /// What this client is told instead of being served; `None`: it is served.
    pub(crate) fn notice(&self, client: Option<IpAddr>) -> Option<Arc<Notice>> {
        let current = self.notice.load();
        let notice = current.as_ref()?;
        (!notice.lets_pass(client)).then(|| Arc::clone(notice))
    }

    /// Whether the mode is on.
    pub(crate) fn is_on(&self) -> bool {
        self.notice.load().is_some()
    }
}

/// What is said when nobody says anything else.
pub const DEFAULT_MESSAGE: &str = "This server is down for maintenance and will be back soon";

/// Enough for a few sentences; a page or a client's error box has no room for more.
pub const LONGEST_MESSAGE: usize = 500;

const RETRY_AFTER: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn notice(message: &str, secs: u64) -> Result<Notice, NoticeError> {
        Notice::new(Some(message), Duration::from_secs(secs), Vec::new(), UNIX_EPOCH)
    }

    #[test]
    fn a_message_is_one_line_of_bounded_length() {
        assert_eq!(notice("  back at 9  ", 1).map(|notice| notice.message), Ok("back at 9".to_owned()));
        assert_eq!(notice(&"ü".repeat(500), 1).map(|notice| notice.message.len()), Ok(1000));
        assert_eq!(notice(&"ü".repeat(501), 1), Err(NoticeError::TooLong(501)));
        assert_eq!(notice(" ", 1), Err(NoticeError::Empty));
        for text in ["a\nb", "a\u{1b}[31m", "a\0", "a\u{2028}b", "a\u{85}b"] {
            assert_eq!(notice(text, 1), Err(NoticeError::ControlCharacter), "{text:?}");
        }
        let default = Notice::new(None, Duration::from_secs(600), Vec::new(), UNIX_EPOCH);
        assert_eq!(default.map(|notice| notice.message), Ok(DEFAULT_MESSAGE.to_owned()));
    }

    #[test]
    fn the_time_is_bounded() {
        assert_eq!(notice("x", 0), Err(NoticeError::RetryAfter));
        assert!(notice("x", 30 * 86_400).is_ok());
        assert_eq!(notice("x", 30 * 86_400 + 1), Err(NoticeError::RetryAfter));
    }

    #[test]
    fn only_named_networks_pass() {
        let allow = vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        let notice = Notice::new(None, Duration::from_secs(60), allow, UNIX_EPOCH).unwrap();
        let maintenance = Maintenance::default();
        let passes = |ip: &str| maintenance.notice(ip.parse().ok()).is_none();
        assert!(passes("198.51.100.1") && passes("unknown") && !maintenance.is_on());
        maintenance.notice.store(Some(Arc::new(notice)));
        assert!(maintenance.is_on());
        assert!(passes("192.0.2.7") && passes("2001:db8::1"));
        assert!(!passes("198.51.100.1") && !passes("unknown"));
    }
}
