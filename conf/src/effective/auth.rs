//! The keys of the auth half.

use std::path::Path;

use serde_yaml::Value;

use super::{Keys, REDACTED, bind, list, path, texts};
use crate::source::conceal_password_in_uri;
use crate::value::print_duration;
use crate::{
    Auth, AuthListener, Database, HashAlgorithm, Hasher, Http, HttpLimits, HttpTimeouts, Matrix, Passwords,
    RateLimit, RateLimiting, Resource,
};

pub(super) fn print(auth: &Auth, encryption_file: Option<&Path>, all: &mut Keys) {
    all.put("http", http(&auth.http));
    all.put("database", database(&auth.database));
    all.put("matrix", matrix(&auth.matrix));
    if auth.encryption.is_some() {
        let mut secrets = Keys::default();
        match encryption_file {
            Some(file) => secrets.put("encryption_file", path(file)),
            None => secrets.put("encryption", REDACTED),
        }
        all.put("secrets", secrets);
    }
    all.put("passwords", passwords(&auth.passwords));
    let mut account = Keys::default();
    account.put("login_with_email_allowed", auth.account.login_with_email_allowed);
    all.put("account", account);
    all.put("rate_limiting", rate_limiting(&auth.rate_limiting));
    let mut experimental = Keys::default();
    experimental.put("compat_token_ttl", auth.compat_token_ttl.as_secs());
    all.put("experimental", experimental);
}

fn http(http: &Http) -> Keys {
    let mut keys = Keys::default();
    keys.put("public_base", http.public_base.as_str());
    keys.put("issuer", http.issuer.as_str());
    keys.put("trusted_proxies", texts(&http.trusted_proxies));
    keys.put("listeners", list(&http.listeners, listener));
    keys.put("limits", limits(&http.limits));
    keys.put("timeouts", timeouts(&http.timeouts));
    keys
}

fn limits(limits: &HttpLimits) -> Keys {
    let mut keys = Keys::default();
    keys.put("max_connections", limits.max_connections as u64);
    keys.put("max_connections_per_ip", limits.max_connections_per_ip as u64);
    keys.put("max_header_size", limits.max_header_size.to_string());
    keys.put("max_header_count", limits.max_header_count as u64);
    keys.put("max_body_size", limits.max_body_size.to_string());
    keys.put("max_requests_per_connection", limits.max_requests_per_connection as u64);
    keys.put("max_concurrent_streams", limits.max_concurrent_streams);
    keys.put("h2_control_frames", limits.h2_control_frames);
    keys.put("h2_resets", limits.h2_resets);
    keys.put("min_body_rate", limits.min_body_rate.to_string());
    keys.put("min_send_rate", limits.min_send_rate.to_string());
    keys
}

fn timeouts(timeouts: &HttpTimeouts) -> Keys {
    let mut keys = Keys::default();
    let all = [
        ("proxy_header", timeouts.proxy_header),
        ("handshake", timeouts.handshake),
        ("header", timeouts.header),
        ("idle", timeouts.idle),
        ("body", timeouts.body),
        ("send", timeouts.send),
        ("linger", timeouts.linger),
        ("request", timeouts.request),
        ("drain", timeouts.drain),
    ];
    for (key, duration) in all {
        keys.put(key, print_duration(duration));
    }
    keys
}

fn listener(listener: &AuthListener) -> Value {
    let mut keys = Keys::default();
    keys.put("name", listener.name.as_str());
    keys.put("resources", list(&listener.resources, resource));
    if !listener.prefix.is_empty() {
        keys.put("prefix", listener.prefix.as_str());
    }
    keys.put("binds", list(&listener.binds, bind));
    keys.put("proxy_protocol", listener.proxy_protocol);
    if let Some(certificate) = &listener.tls {
        let mut tls = Keys::default();
        tls.put_certificate(certificate);
        keys.put("tls", tls);
    }
    keys.into()
}

fn resource(resource: &Resource) -> Value {
    let mut keys = Keys::default();
    keys.put("name", resource.name());
    if let Resource::Assets { path: Some(folder) } = resource {
        keys.put("path", path(folder));
    }
    keys.into()
}

fn database(database: &Database) -> Keys {
    let mut keys = Keys::default();
    keys.put("uri", conceal_password_in_uri(database.uri.expose()));
    keys.put("max_connections", database.max_connections);
    keys.put("connect_timeout", database.connect_timeout.as_secs());
    keys
}

fn matrix(matrix: &Matrix) -> Keys {
    let mut keys = Keys::default();
    keys.put("kind", "synapse");
    keys.put("homeserver", matrix.homeserver.as_str());
    keys.put("endpoint", matrix.endpoint.as_str());
    if let Some(secret) = &matrix.secret {
        keys.put_secret("secret", secret);
    }
    keys
}

fn passwords(passwords: &Passwords) -> Keys {
    let mut keys = Keys::default();
    keys.put("enabled", passwords.enabled);
    keys.put("minimum_complexity", passwords.minimum_complexity);
    keys.put("schemes", list(&passwords.schemes, scheme));
    keys
}

fn scheme(scheme: &Hasher) -> Value {
    let mut keys = Keys::default();
    keys.put("version", scheme.version);
    match scheme.algorithm {
        HashAlgorithm::Argon2id { memory_kib, iterations, parallelism } => {
            keys.put("algorithm", "argon2id");
            keys.put("memory_kib", memory_kib);
            keys.put("iterations", iterations);
            keys.put("parallelism", parallelism);
        }
        HashAlgorithm::Bcrypt { cost } => {
            keys.put("algorithm", "bcrypt");
            keys.put("cost", cost);
        }
        HashAlgorithm::Pbkdf2 { iterations } => {
            keys.put("algorithm", "pbkdf2");
            keys.put("iterations", iterations);
        }
    }
    keys.put("unicode_normalization", scheme.unicode_normalization);
    if let Some(secret) = &scheme.secret {
        keys.put_secret("secret", secret);
    }
    keys.into()
}

fn rate_limiting(rates: &RateLimiting) -> Keys {
    let rate = |rate: RateLimit| {
        let mut keys = Keys::default();
        keys.put("burst", rate.burst);
        keys.put("per_second", rate.per_second);
        keys
    };
    let mut login = Keys::default();
    login.put("per_ip", rate(rates.login_per_ip));
    login.put("per_account", rate(rates.login_per_account));
    let mut keys = Keys::default();
    keys.put("login", login);
    keys
}
