//! `database`: a URI, or its parts.
//!
//! Nothing is connected here.

use std::path::Path;
use std::time::Duration;

use url::Url;

use super::Database;
use crate::Secret;
use crate::reader::{Item, Section};
use crate::secret::{secret, value_or_file};

/// Reads `database`, or makes the default.
pub(crate) fn read(item: Option<&Item<'_>>, data_dir: &Path) -> Option<Database> {
    let default = || {
        Secret::new(format!(
            "sqlite://{}",
            std::path::absolute(data_dir.join("auth.db")).unwrap_or_default().display()
        ))
    };
    let Some(item) = item else {
        return Some(Database {
            uri: default(),
            max_connections: MAX_CONNECTIONS,
            connect_timeout: CONNECT_TIMEOUT,
        });
    };
    let mut section = item.section()?;
    let uri_item = section.take("uri");
    let parts = read_parts(&mut section, uri_item.as_ref());
    let uri = match (&uri_item, parts) {
        (Some(item), _) => item.parse(parse_uri),
        (None, Some(Parts::Made(uri))) => Some(uri),
        (None, Some(Parts::Faulty)) => None,
        (None, None) => Some(default()),
    };
    let max_connections =
        section.take("max_connections").map_or(Some(MAX_CONNECTIONS), |item| item.whole(1, 1000));
    let connect_timeout =
        section.take("connect_timeout").map_or(Some(CONNECT_TIMEOUT), |item| item.seconds());
    section.unused(&["min_connections", "idle_timeout", "max_lifetime"]);
    section.finish();
    Some(Database { uri: uri?, max_connections: max_connections?, connect_timeout: connect_timeout? })
}

fn parse_uri(text: &str) -> Result<Secret, String> {
    if let Some(path) = text.strip_prefix("sqlite:") {
        if path.contains(":memory:") || path.contains("mode=memory") {
            return Err("a database in memory would forget every account, name a file: sqlite:///var/lib/gatehouse/auth.db".to_owned());
        }
        let path = path.strip_prefix("//").unwrap_or(path);
        if !path.starts_with('/') {
            return Err("name the file with its whole path: sqlite:///var/lib/gatehouse/auth.db".to_owned());
        }
        return Ok(Secret::new(format!("sqlite://{path}")));
    }
    if !text.starts_with("postgresql://") && !text.starts_with("postgres://") {
        return Err("has to begin with sqlite:// or postgresql://".to_owned());
    }
    match Url::parse(text) {
        Ok(_) => Ok(Secret::new(text)),
        // `postgresql://` alone is libpq's "everything by default".
        Err(url::ParseError::EmptyHost) => Ok(Secret::new(text)),
        // The text may hold a password and is not repeated.
        Err(error) => Err(format!("is not a URI ({error}), write postgresql://user:password@host/database")),
    }
}

enum Parts {
    Made(Secret),
    Faulty,
}

/// `host`, `port`, … as MAS has them beside `uri`; `None` when none is given.
fn read_parts(section: &mut Section<'_>, uri: Option<&Item<'_>>) -> Option<Parts> {
    let host = text_part(section, "host");
    let port = section.take("port").map(|item| (item.whole(1, u16::MAX).map(|port| port.to_string()), item));
    let socket =
        section.take("socket").map(|item| (item.file_path().map(|path| path.display().to_string()), item));
    let username = text_part(section, "username");
    let database = text_part(section, "database");
    let ssl_mode = section.take("ssl_mode").map(|item| (item.choice(&SSL_MODES).map(str::to_owned), item));
    let password_item = section.take("password").or_else(|| section.take("password_file"));
    let password = password_item.map(|item| (secret(section, "password", "password_file"), item));
    let mut files: Vec<(&str, Option<String>, Item<'_>)> = Vec::new();
    for (key, file_key, parameter) in SSL_FILES {
        if let Some((item, is_file)) = value_or_file(section, key, file_key) {
            let value = if is_file {
                item.file_path().map(|path| path.display().to_string())
            } else {
                item.filled_text().map(str::to_owned)
            };
            files.push((parameter, value, item));
        }
    }

    let plain = [&host, &port, &socket, &username, &database, &ssl_mode];
    let first = plain.iter().find_map(|part| part.as_ref().map(|(_, item)| item));
    let first =
        first.or(password.as_ref().map(|(_, item)| item)).or(files.first().map(|(_, _, item)| item))?.clone();
    if let Some(uri) = uri {
        first.error_with("`uri` is given too, write either the URI or its parts", uri.key_span(), "the URI");
        return Some(Parts::Faulty);
    }
    let faulty = plain.iter().any(|part| matches!(part, Some((None, _))))
        || matches!(password, Some((None, _)))
        || files.iter().any(|(_, value, _)| value.is_none());
    if faulty {
        return Some(Parts::Faulty);
    }
    let value =
        |part: &Option<(Option<String>, Item<'_>)>| part.as_ref().and_then(|(value, _)| value.clone());
    let password = password.and_then(|(password, _)| password);
    let mut parameters: Vec<(&str, String)> = Vec::new();
    if let Some(socket) = value(&socket) {
        parameters.push(("host", socket));
    }
    if let Some(mode) = value(&ssl_mode) {
        parameters.push(("sslmode", mode));
    }
    parameters.extend(files.into_iter().filter_map(|(name, value, _)| value.map(|value| (name, value))));
    let made = compose(value(&host), value(&port), value(&username), password, value(&database), &parameters);
    if made.is_none() {
        first.error("these parts do not make the address of a database");
    }
    Some(made.map_or(Parts::Faulty, Parts::Made))
}

fn text_part<'a>(section: &mut Section<'a>, key: &'static str) -> Option<(Option<String>, Item<'a>)> {
    section.take(key).map(|item| (item.filled_text().map(str::to_owned), item))
}

fn compose(
    host: Option<String>,
    port: Option<String>,
    username: Option<String>,
    password: Option<Secret>,
    database: Option<String>,
    parameters: &[(&str, String)],
) -> Option<Secret> {
    let host = host.unwrap_or_else(|| "localhost".to_owned());
    let mut url = Url::parse(&format!("postgresql://{host}/")).ok()?;
    if let Some(port) = port {
        url.set_port(port.parse().ok()).ok()?;
    }
    if let Some(username) = username {
        url.set_username(&username).ok()?;
    }
    if let Some(password) = password {
        url.set_password(Some(password.expose())).ok()?;
    }
    if let Some(database) = database {
        url.set_path(&database);
    }
    if !parameters.is_empty() {
        url.query_pairs_mut().extend_pairs(parameters);
    }
    Some(Secret::new(url.as_str()))
}

const SSL_MODES: [(&str, &str); 6] = [
    ("disable", "disable"),
    ("allow", "allow"),
    ("prefer", "prefer"),
    ("require", "require"),
    ("verify-ca", "verify-ca"),
    ("verify-full", "verify-full"),
];

/// MAS's keys, and the parameter of the URI that takes a path or the PEM itself.
const SSL_FILES: [(&str, &str, &str); 3] = [
    ("ssl_ca", "ssl_ca_file", "sslrootcert"),
    ("ssl_certificate", "ssl_certificate_file", "sslcert"),
    ("ssl_key", "ssl_key_file", "sslkey"),
];

/// MAS's default.
const MAX_CONNECTIONS: u32 = 10;
/// MAS's default.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
