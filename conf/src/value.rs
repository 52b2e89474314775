//! Small values that are parsed once and carry their unit in the type.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

/// A number of bytes. Written `512`, `512k`, `50M`, `1G`: powers of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// The shortest way to write it: `50M`, not `52428800`.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (factor, unit) = SIZE_UNITS
            .into_iter()
            .rev()
            .find(|(factor, _)| self.0 > 0 && self.0.is_multiple_of(*factor))
            .unwrap_or((1, ""));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

/// A value that is never printed: `Debug` and `Display` say `<redacted>`.
#[derive(Clone)]
pub struct Secret {
    value: String,
    file: Option<PathBuf>,
}

impl Secret {
    /// Wraps a secret.
    pub fn new(value: impl Into<String>) -> Self {
        Self { value: value.into(), file: None }
    }

    /// Wraps a secret that was read from a file; the effective configuration then names the file.
    pub(crate) fn from_file(value: String, file: PathBuf) -> Self {
        Self { value, file: Some(file) }
    }

    /// The secret itself; the caller must not log it.
    pub fn expose(&self) -> &str {
        &self.value
    }

    /// The file it was read from, if any.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }
}

/// Equal when the secrets are, wherever they came from. Not in constant time: for tests and configuration, never for what clients send.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// `512`, `512k`, `50M`, `1G`.
pub(crate) fn parse_size(text: &str) -> Result<ByteSize, String> {
    let (number, unit) = split_unit(text);
    let wrong = || format!("`{text}` is not a size, write a whole number with k, M or G, such as 50M");
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit = unit.strip_suffix("iB").unwrap_or(unit);
    let (factor, _) =
        SIZE_UNITS.into_iter().find(|(_, name)| unit.eq_ignore_ascii_case(name)).ok_or_else(wrong)?;
    number.checked_mul(factor).map(ByteSize).ok_or_else(|| format!("`{text}` is too large"))
}

/// `500ms`, `30s`, `5m`, `12h`, `365d`, `2w`, as durations are written everywhere; at most 100 years.
///
/// # Errors
/// Says what is wrong, for people.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let wrong = || {
        format!(
            "`{text}` is not a duration, write a whole number with its unit (ms, s, m, h, d or w), such as 30s"
        )
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let (millis, _) = DURATION_UNITS.into_iter().find(|(_, name)| *name == unit).ok_or_else(wrong)?;
    let millis = number.checked_mul(millis).ok_or_else(|| format!("`{text}` is too long"))?;
    if millis > LONGEST_MILLIS {
        return Err(format!("`{text}` is too long, at most 100 years"));
    }
    Ok(Duration::from_millis(millis))
}

/// The shortest way to write a duration: `5m`, not `300s`. Days are the longest unit used.
pub(crate) fn print_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let units = DURATION_UNITS.into_iter().filter(|(_, name)| *name != "w");
    let (factor, unit) = units.rev().find(|(factor, _)| millis.is_multiple_of(*factor)).unwrap_or((1, "ms"));
    format!("{}{unit}", millis / factor)
}

/// A network (`10.0.0.0/8`) or one address (`127.0.0.1`). Bits beyond the prefix are dropped, as in `127.0.0.1/8`.
///
/// # Errors
/// Says what is wrong, for people.
pub fn parse_network(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    text.parse::<IpNet>()
        .map(|network| network.trunc())
        .map_err(|_| format!("`{text}` is not a network, write an address with its prefix length, such as 10.0.0.0/8 or fd00::/8"))
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

const SIZE_UNITS: [(u64, &str); 5] = [(1, "B"), (1, ""), (1 << 10, "k"), (1 << 20, "M"), (1 << 30, "G")];

const DURATION_UNITS: [(u64, &str); 6] =
    [(1, "ms"), (1_000, "s"), (60_000, "m"), (3_600_000, "h"), (86_400_000, "d"), (604_800_000, "w")];

/// 100 years of 365 days: anything longer is a mistake, and `Instant + Duration` stays in range.
const LONGEST_MILLIS: u64 = 100 * 365 * 86_400_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        let check =
            |text: &str, expected: u64| assert_eq!(parse_size(text), Ok(ByteSize(expected)), "{text}");
        check("0", 0);
        check("512", 512);
        check("512k", 512 << 10);
        check("32K", 32 << 10);
        check("50M", 50 << 20);
        check("50MiB", 50 << 20);
        check("1G", 1 << 30);
        for wrong in ["", "M", "-1", "1.5M", "1T", "99999999999G", "5 0M"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        let check = |text: &str, millis: u64| {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}")
        };
        check("500ms", 500);
        check("30s", 30_000);
        check("5m", 300_000);
        check("12h", 43_200_000);
        check("365d", 31_536_000_000);
        check("2w", 1_209_600_000);
        for wrong in ["", "30", "s", "-5s", "1.5h", "5M", "5 minutes", "99999999999999999999s", "200000d"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_printed_parses_back() {
        for millis in [0, 1, 999, 1_000, 90_000, 60_000, 3_600_000, 86_400_000, 31_536_000_000] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(&print_duration(duration)), Ok(duration));
        }
        for bytes in [0, 1, 1023, 1024, 50 << 20, 3 << 30, (50 << 20) + 1] {
            assert_eq!(parse_size(&ByteSize(bytes).to_string()), Ok(ByteSize(bytes)));
        }
        assert_eq!(print_duration(Duration::from_secs(200)), "200s");
        assert_eq!(ByteSize(50 << 20).to_string(), "50M");
    }

    proptest::proptest! {
        #[test]
        fn any_value_that_is_printed_parses_back(millis in 0..=LONGEST_MILLIS, bytes: u64) {
            let duration = Duration::from_millis(millis);
            proptest::prop_assert_eq!(parse_duration(&print_duration(duration)), Ok(duration));
            proptest::prop_assert_eq!(parse_size(&ByteSize(bytes).to_string()), Ok(ByteSize(bytes)));
        }

        #[test]
        fn a_network_holds_the_address_it_was_written_with(address: IpAddr, length in 0_u8..=128) {
            let length = if address.is_ipv4() { length.min(32) } else { length };
            let network = parse_network(&format!("{address}/{length}")).unwrap();
            proptest::prop_assert!(network.contains(&address));
            proptest::prop_assert_eq!(parse_network(&network.to_string()), Ok(network));
        }
    }

    #[test]
    fn networks_of_the_guide_are_taken_as_written() {
        let check =
            |text: &str, expected: &str| assert_eq!(parse_network(text).unwrap().to_string(), expected);
        check("10.0.0.0/10", "10.0.0.0/10");
        check("127.0.0.1/8", "127.0.0.0/8");
        check("fd00::/8", "fd00::/8");
        check("::1/128", "::1/128");
        check("192.0.2.7", "192.0.2.7/32");
        check("2001:db8::1", "2001:db8::1/128");
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "localhost", "10.0.0.0/", "::/129"] {
            assert!(parse_network(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn secrets_are_never_printed() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "<redacted> <redacted>");
        assert_eq!(secret.expose(), "hunter2");
    }
}
