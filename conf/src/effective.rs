//! A [`Config`] as YAML again, in the words of the configuration file.
//!
//! What is printed loads to the same configuration, but for secrets that were written into the file itself.

mod auth;
mod edge;

use std::path::Path;

use serde_yaml::{Mapping, Value};

use crate::source::print as print_yaml;
use crate::{Bind, Certificate, Config, Secret};

/// The whole configuration; `encryption_file` is where the encryption secret came from.
pub(crate) fn print(config: &Config, encryption_file: Option<&Path>) -> String {
    let mut all = Keys::default();
    all.put("data_dir", path(&config.data_dir));
    if let Some(edge) = &config.edge {
        all.put("edge", edge::print(edge));
    }
    if let Some(auth) = &config.auth {
        auth::print(auth, encryption_file, &mut all);
    }
    print_yaml(&all.into())
}

/// A mapping in the making.
#[derive(Default)]
struct Keys(Mapping);

impl Keys {
    fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(Value::String(key.to_owned()), value.into());
    }

    /// `<key>_file` when the secret came from a file, else `<key>: <redacted>`.
    fn put_secret(&mut self, key: &str, secret: &Secret) {
        match secret.file() {
            Some(file) => self.put(&format!("{key}_file"), path(file)),
            None => self.put(key, REDACTED),
        }
    }

    fn put_certificate(&mut self, certificate: &Certificate) {
        match &certificate.certificate_file {
            Some(file) => self.put("certificate_file", path(file)),
            None => self.put("certificate", REDACTED),
        }
        match &certificate.key_file {
            Some(file) => self.put("key_file", path(file)),
            None => self.put("key", REDACTED),
        }
    }
}

impl From<Keys> for Value {
    fn from(keys: Keys) -> Self {
        Self::Mapping(keys.0)
    }
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

fn list<T>(items: &[T], print: impl Fn(&T) -> Value) -> Value {
    Value::Sequence(items.iter().map(print).collect())
}

fn texts<T: ToString>(items: &[T]) -> Value {
    list(items, |item| item.to_string().into())
}

/// The word for a value in a table of words.
fn word<T: PartialEq>(choices: &[(&'static str, T)], value: &T) -> &'static str {
    choices.iter().find(|(_, known)| known == value).map_or("", |(word, _)| word)
}

fn bind(bind: &Bind) -> Value {
    let mut keys = Keys::default();
    match bind {
        Bind::Host { host, port } => {
            if let Some(host) = host {
                keys.put("host", host.as_str());
            }
            keys.put("port", *port);
        }
        Bind::Address(address) => keys.put("address", address.to_string()),
        Bind::Socket { path: file, mode } => {
            keys.put("socket", path(file));
            if let Some(mode) = mode {
                keys.put("mode", format!("{mode:o}"));
            }
        }
        Bind::Fd { index, kind } => {
            keys.put("fd", *index as u64);
            keys.put("kind", word(&crate::listener::SOCKET_KINDS, kind));
        }
        Bind::FdName { name, kind } => {
            keys.put("fd_name", name.as_str());
            keys.put("kind", word(&crate::listener::SOCKET_KINDS, kind));
        }
    }
    keys.into()
}

const REDACTED: &str = "<redacted>";
