//! When the certificates in force end: for metrics, and once a day for the log. They are loaded, and judged the first time,
//! in `conf`.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use conf::{Dates, Validity};

use crate::exposition::Exposition;

/// Certificates in force; replaced with them.
#[derive(Debug, Default)]
pub struct Expiries(ArcSwap<BTreeMap<Label, Validity>>);

/// How a certificate is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Label {
    /// The first name it is for.
    name: String,
    /// Where it was read from; empty when it stands in the configuration itself.
    file: String,
}

impl Expiries {
    /// These are in force from now on. Of several that are called the same, the one that ends first is remembered.
    pub fn replace<'a>(&self, certificates: impl IntoIterator<Item = &'a conf::Certificate>) {
        let mut known = BTreeMap::new();
        for certificate in certificates {
            let Some(validity) = certificate.validity() else { continue };
            let file = certificate.certificate_file.as_ref().map(|file| file.display().to_string());
            let name = certificate.names.first().cloned().unwrap_or_default();
            let earliest = known.entry(Label { name, file: file.unwrap_or_default() }).or_insert(validity);
            if validity.not_after < earliest.not_after {
                *earliest = validity;
            }
        }
        self.0.store(known.into());
    }

    /// Writes when each ends.
    pub fn write(&self, out: &mut Exposition) {
        out.gauges(
            "certificate_not_after_seconds",
            "When a certificate in force ends, in seconds since 1970, by its first name.",
            |family| {
                for (label, validity) in self.0.load().iter() {
                    family.sample(&[("name", &label.name), ("file", &label.file)], validity.not_after);
                }
            },
        );
    }

    /// Logs every day which certificates have ended, or should have been renewed by now.
    pub async fn remind(&self, now: impl Fn() -> SystemTime) {
        loop {
            tokio::time::sleep(DAY).await;
            for (label, validity, dates) in self.due(now()) {
                let Label { name, file } = &label;
                let last_day = validity.last_day();
                match dates {
                    Dates::Expired => tracing::error!(name, file, last_day, "a certificate has expired"),
                    Dates::EndSoon => tracing::warn!(name, file, last_day, "a certificate expires soon"),
                    Dates::Future => tracing::warn!(name, file, "a certificate is not valid yet"),
                    Dates::Fine => {}
                }
            }
        }
    }

    fn due(&self, now: SystemTime) -> Vec<(Label, Validity, Dates)> {
        let judged = |(label, validity): (&Label, &Validity)| (label.clone(), *validity, validity.judge(now));
        let judged = self.0.load().iter().map(judged).collect::<Vec<_>>();
        judged.into_iter().filter(|(_, _, dates)| *dates != Dates::Fine).collect()
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::fixtures::certificate;

    #[test]
    fn the_dates_of_what_is_in_force_are_told() {
        let expiries = Expiries::default();
        let (first, mut second) = (certificate(&["a.example", "b.example"]), certificate(&["c.example"]));
        second.certificate_file = Some("/etc/c.pem".into());
        expiries.replace([&first, &second, &first]);
        let mut out = Exposition::new("x_");
        expiries.write(&mut out);
        let text = out.into_text();
        // What rcgen makes ends at the end of the year 4095.
        let lines: Vec<&str> = text.lines().skip(2).collect();
        let ends = first.validity().unwrap().not_after;
        let a = format!("x_certificate_not_after_seconds{{name=\"a.example\",file=\"\"}} {ends}");
        let c = format!("x_certificate_not_after_seconds{{name=\"c.example\",file=\"/etc/c.pem\"}} {ends}");
        assert_eq!(lines, [a, c]);

        let at = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap());
        assert_eq!(expiries.due(at(1_800_000_000)), []);
        let due: Vec<Dates> = expiries.due(at(ends + 1)).into_iter().map(|(_, _, dates)| dates).collect();
        assert_eq!(due, [Dates::Expired; 2]);
        assert_eq!(expiries.due(at(ends - 86_400))[0].2, Dates::EndSoon);
        expiries.replace([]);
        assert_eq!(expiries.due(at(ends + 1)), []);
    }
}
