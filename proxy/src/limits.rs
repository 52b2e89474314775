//! Bounds on request bodies, and on how slow clients may be. Connections are counted in `accept`, heads are measured in
//! `gate` and `listener`.

use crate::error::Fault;
use crate::gate::Body;
pub(crate) use accept::pace::{Pace, PaceMeter, Slow};

/// Counts the body of one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyMeter {
    limit: u64,
    seen: u64,
}

impl BodyMeter {
    /// At most `limit` bytes.
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, seen: 0 }
    }

    /// Refuses a body by what its head says, before a byte of it is read.
    ///
    /// # Errors
    /// [`Fault::BodyTooLarge`].
    pub(crate) fn check_declared(&self, body: Body) -> Result<(), Fault> {
        match body {
            Body::Length(length) if length > self.limit => Err(Fault::BodyTooLarge),
            Body::Length(_) | Body::Chunked | Body::Unsaid => Ok(()),
        }
    }

    /// The body is read again from its start: the request is tried on another connection.
    pub(crate) fn restart(&mut self) {
        self.seen = 0;
    }

    /// Counts bytes that came.
    ///
    /// # Errors
    /// [`Fault::BodyTooLarge`] when there are more than the limit in all.
    pub(crate) fn count(&mut self, bytes: usize) -> Result<(), Fault> {
        self.seen = self.seen.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        if self.seen > self.limit { Err(Fault::BodyTooLarge) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_itself_is_allowed() {
        let mut meter = BodyMeter::new(10);
        assert_eq!(meter.check_declared(Body::Length(10)), Ok(()));
        assert_eq!(meter.check_declared(Body::Length(11)), Err(Fault::BodyTooLarge));
        assert_eq!(meter.check_declared(Body::Chunked), Ok(()));
        assert_eq!(meter.count(6), Ok(()));
        assert_eq!(meter.count(4), Ok(()));
        assert_eq!(meter.count(1), Err(Fault::BodyTooLarge));
    }
}
