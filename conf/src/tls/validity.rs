//! From when to when a certificate is valid, and when somebody should be told that it ends.

use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;

/// Both ends of a certificate's validity (RFC 5280 §4.1.2.5), in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first second at which it is valid.
    pub not_before: i64,
    /// The last one.
    pub not_after: i64,
}

/// What is to be said about a certificate's dates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dates {
    /// Nothing.
    Fine,
    /// It should have been renewed by now.
    EndSoon,
    /// It is over.
    Expired,
    /// It is not valid yet.
    Future,
}

impl Validity {
    /// Of a certificate; `None` when it cannot be parsed.
    pub(crate) fn of(leaf: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(leaf).ok()?;
        let validity = certificate.validity();
        Some(Self { not_before: validity.not_before.timestamp(), not_after: validity.not_after.timestamp() })
    }

    /// What is to be said at `now`. Authorities that renew by themselves do so when a third of the time is left: who has less than
    /// a quarter, and less than 30 days, has missed it.
    pub fn judge(&self, now: SystemTime) -> Dates {
        let now = seconds(now);
        let soon = (self.not_after.saturating_sub(self.not_before) / 4).min(SOON_SECS);
        if now > self.not_after {
            Dates::Expired
        } else if now < self.not_before {
            Dates::Future
        } else if self.not_after - now < soon {
            Dates::EndSoon
        } else {
            Dates::Fine
        }
    }

    /// The day of its beginning: `2027-03-01`.
    pub fn first_day(&self) -> String {
        day(self.not_before)
    }

    /// The day of its end.
    pub fn last_day(&self) -> String {
        day(self.not_after)
    }
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// `2027-03-01`, by the civil-from-days formula.
fn day(timestamp: i64) -> String {
    let days = timestamp.max(0) / 86_400 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Certificates of a year or more are renewed by hand: a month is enough for that.
const SOON_SECS: i64 = 30 * 86_400;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DAY: i64 = 86_400;

    #[test]
    fn it_is_said_when_a_renewal_was_missed() {
        let check = |days: i64, left: i64, expected| {
            let validity = Validity { not_before: 0, not_after: days * DAY };
            let now = u64::try_from((days - left) * DAY).unwrap();
            assert_eq!(validity.judge(UNIX_EPOCH + Duration::from_secs(now)), expected, "{left} of {days}");
        };
        check(90, 23, Dates::Fine);
        check(90, 22, Dates::EndSoon);
        check(6, 2, Dates::Fine);
        check(6, 1, Dates::EndSoon);
        check(3650, 30, Dates::Fine);
        check(3650, 29, Dates::EndSoon);
        check(90, 0, Dates::EndSoon);
        check(90, -1, Dates::Expired);
        let future = Validity { not_before: DAY, not_after: 2 * DAY };
        assert_eq!(future.judge(UNIX_EPOCH), Dates::Future);
    }

    #[test]
    fn days_are_written_as_people_do() {
        let validity = Validity { not_before: 951_782_400, not_after: 1_893_455_999 };
        assert_eq!((validity.first_day(), validity.last_day()), ("2000-02-29".into(), "2029-12-31".into()));
    }
}
