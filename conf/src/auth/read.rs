//! Puts the sections of the auth half together, and fills in what the preset knows.

use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::{Account, Auth, Matrix, RateLimit, RateLimiting, database, http, mas, passwords};
use crate::Severity;
use crate::preset::{Preset, parse_server_name};
use crate::reader::{Item, Section};
use crate::secret::secret;

/// Reads the keys of the auth half from the top of the file. `preset` is given when the edge has one that is readable.
/// Beside the result: the file of the encryption secret, if it came from one.
pub(crate) fn read(
    root: &mut Section<'_>,
    preset: Option<&Preset>,
    data_dir: &Path,
) -> Option<(Auth, Option<PathBuf>)> {
    let http = http::read(root.take("http").as_ref(), preset, data_dir);
    let database = database::read(root.take("database").as_ref(), data_dir);
    let matrix = read_matrix(root.take("matrix").as_ref(), preset);
    let encryption = match root.take("secrets") {
        Some(item) => read_secrets(&item),
        None => Some(None),
    };
    let passwords = passwords::read(root.take("passwords").as_ref());
    let account = root.take("account").map_or(Some(Account::default()), |item| read_account(&item));
    let rate_limiting =
        root.take("rate_limiting").map_or(Some(RateLimiting::default()), |item| read_rates(&item));
    let compat_token_ttl =
        root.take("experimental").map_or(Some(COMPAT_TOKEN_TTL), |item| read_experimental(&item));
    let (encryption, encryption_file) = encryption?.unzip();
    let auth = Auth {
        http: http?,
        database: database?,
        matrix: matrix?,
        encryption,
        passwords: passwords?,
        account: account?,
        rate_limiting: rate_limiting?,
        compat_token_ttl: compat_token_ttl?,
    };
    Some((auth, encryption_file.flatten()))
}

fn read_matrix(item: Option<&Item<'_>>, preset: Option<&Preset>) -> Option<Matrix> {
    let default_name = preset.map_or("localhost:8008", |preset| preset.server_name.as_str());
    let default_endpoint = match preset {
        Some(preset) => preset.endpoint(),
        None => Url::parse("http://localhost:8008/").ok(),
    };
    let Some(item) = item else {
        return Some(Matrix {
            homeserver: default_name.to_owned(),
            endpoint: default_endpoint?,
            secret: None,
        });
    };
    let mut section = item.section()?;
    if let Some(kind) = section.take("kind")
        && let Some(Kind::ReadOnly) = kind.choice(&KINDS)
    {
        kind.error(
            "a read-only homeserver is not supported by this version: it could not be told of a login",
        );
    }
    let homeserver = match section.take("homeserver") {
        Some(item) => {
            let name = item.parse(parse_server_name);
            if let (Some(name), Some(preset)) = (&name, preset)
                && *name != preset.server_name
            {
                let message = format!(
                    "differs from edge.matrix.server_name `{}`, keep one of them",
                    preset.server_name
                );
                item.error_with(message, preset.server_name_span, "the server name of the preset");
            }
            name
        }
        None => Some(default_name.to_owned()),
    };
    let endpoint = match section.take("endpoint") {
        Some(item) => item.parse(parse_endpoint),
        None => default_endpoint,
    };
    let given = ["secret", "secret_file"].into_iter().any(|key| section.take(key).is_some());
    let secret = secret(&mut section, "secret", "secret_file");
    section.finish();
    if given && secret.is_none() {
        return None;
    }
    Some(Matrix { homeserver: homeserver?, endpoint: endpoint?, secret })
}

/// `http://…`, `https://…` or `unix:/path`; a `/` is put at the end of the former.
fn parse_endpoint(text: &str) -> Result<Url, String> {
    let wrong = || {
        format!(
            "`{text}` is not where Synapse listens, write http://localhost:8008/ or unix:/run/synapse.sock"
        )
    };
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return if path.starts_with('/') {
            Url::parse(&format!("unix://{path}")).map_err(|_| wrong())
        } else {
            Err(wrong())
        };
    }
    http::parse_base(text).map_err(|_| wrong())
}

#[derive(Clone, Copy)]
enum Kind {
    Synapse,
    ReadOnly,
}

const KINDS: [(&str, Kind); 4] = [
    ("synapse", Kind::Synapse),
    ("synapse_modern", Kind::Synapse),
    ("synapse_legacy", Kind::Synapse),
    ("synapse_read_only", Kind::ReadOnly),
];

type Encryption = ([u8; 32], Option<PathBuf>);

/// `secrets`: the outer `None` is a fault, the inner one a secret that is made at first start.
fn read_secrets(item: &Item<'_>) -> Option<Option<Encryption>> {
    let mut section = item.section()?;
    let place = section.take("encryption").or_else(|| section.take("encryption_file"));
    let given = secret(&mut section, "encryption", "encryption_file");
    section.unused(&["keys", "keys_dir"]);
    section.finish();
    let Some(place) = place else { return Some(None) };
    let given = given?;
    match parse_encryption(given.expose()) {
        Some(bytes) => Some(Some((bytes, given.file().map(Path::to_owned)))),
        None => {
            place.error("has to be 32 bytes as 64 hexadecimal digits, make one with `openssl rand -hex 32`");
            None
        }
    }
}

fn parse_encryption(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(bytes)
}

impl Default for Account {
    fn default() -> Self {
        Self { login_with_email_allowed: true }
    }
}

fn read_account(item: &Item<'_>) -> Option<Account> {
    let mut section = item.section()?;
    let allowed = section.take("login_with_email_allowed").map_or(Some(true), |item| item.truth());
    section.unused(&mas::ACCOUNT);
    section.finish();
    Some(Account { login_with_email_allowed: allowed? })
}

impl Default for RateLimiting {
    fn default() -> Self {
        Self {
            login_per_ip: RateLimit { burst: 3, per_second: 3.0 / 60.0 },
            login_per_account: RateLimit { burst: 1800, per_second: 1800.0 / 3600.0 },
        }
    }
}

fn read_rates(item: &Item<'_>) -> Option<RateLimiting> {
    let mut section = item.section()?;
    let default = RateLimiting::default();
    let mut rates = Some(default);
    if let Some(login) = section.take("login") {
        let mut section = login.section()?;
        let per_ip = section
            .take("per_ip")
            .map_or(Some(default.login_per_ip), |item| read_rate(&item, default.login_per_ip));
        let per_account = section
            .take("per_account")
            .map_or(Some(default.login_per_account), |item| read_rate(&item, default.login_per_account));
        section.finish();
        rates = per_ip
            .zip(per_account)
            .map(|(login_per_ip, login_per_account)| RateLimiting { login_per_ip, login_per_account });
    }
    section.unused(&mas::RATES);
    section.finish();
    rates
}

fn read_rate(item: &Item<'_>, default: RateLimit) -> Option<RateLimit> {
    let mut section = item.section()?;
    let burst = section.take("burst").map_or(Some(default.burst), |item| item.whole(1, u32::MAX));
    let per_second = section.take("per_second").map_or(Some(default.per_second), |item| {
        let rate = item.number()?;
        if rate <= 0.0 {
            item.error("has to be more than zero, else a limit that is reached is never lifted");
            return None;
        }
        Some(rate)
    });
    section.finish();
    Some(RateLimit { burst: burst?, per_second: per_second? })
}

fn read_experimental(item: &Item<'_>) -> Option<Duration> {
    let mut section = item.section()?;
    let ttl = section.take("compat_token_ttl").map_or(Some(COMPAT_TOKEN_TTL), |item| {
        let ttl = item.seconds()?;
        if !(SHORTEST_TTL..=LONGEST_TTL).contains(&ttl) {
            item.error("has to be between one minute and one day");
            return None;
        }
        Some(ttl)
    });
    section.unused(&mas::EXPERIMENTAL);
    section.finish();
    ttl
}

/// Keys of the auth half in a file that configures no auth service: worth a word, since they do nothing.
pub(crate) fn take_unserved(root: &mut Section<'_>, quiet: bool) {
    for key in ["database", "secrets", "passwords", "account", "rate_limiting", "experimental"] {
        let Some(item) = root.take(key).filter(|_| !quiet) else { continue };
        let message = "is not used, since no auth service is configured (`http`, `matrix`, or `edge.matrix` with `auth: bundled`)";
        root.at_key(&item, Severity::Warning, message.to_owned());
    }
}

/// MAS's default.
const COMPAT_TOKEN_TTL: Duration = Duration::from_secs(300);
/// MAS's bounds.
const SHORTEST_TTL: Duration = Duration::from_secs(60);
const LONGEST_TTL: Duration = Duration::from_secs(86_400);
