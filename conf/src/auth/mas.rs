//! Keys of MAS's configuration file that mean nothing to this version.
//!
//! They are warnings when MAS knows them and errors when it does not, so that a typing mistake in a section we do not use yet is found
//! before it is used. Values are not looked at.

use crate::Severity;
use crate::reader::{Item, Section};

/// `account`, but `login_with_email_allowed`.
pub(crate) const ACCOUNT: [&str; 10] = [
    "email_change_allowed",
    "displayname_change_allowed",
    "password_registration_enabled",
    "password_registration_email_required",
    "password_registration_token_required",
    "password_change_allowed",
    "password_recovery_enabled",
    "account_deactivation_allowed",
    "account_recovery_allowed",
    "registration_token_required",
];

/// `rate_limiting`, but `login`.
pub(crate) const RATES: [&str; 4] =
    ["account_recovery", "registration", "email_authentication", "device_code_link"];

/// `experimental`, but `compat_token_ttl`.
pub(crate) const EXPERIMENTAL: [&str; 5] = [
    "access_token_ttl",
    "inactive_session_expiration",
    "plan_management_iframe_uri",
    "session_limit",
    "passkeys",
];

/// What a section may hold.
enum Shape {
    /// Not looked into.
    Any,
    /// These keys.
    Keys(&'static [(&'static str, Shape)]),
    /// A list of these.
    List(&'static Shape),
}

use Shape::{Any, Keys, List};

/// Takes the sections that are not used at all: one warning each, and an error for each key in them that MAS does not know.
pub(crate) fn unused_sections(root: &mut Section<'_>) {
    for (name, shape) in SECTIONS {
        let Some(item) = root.take(name) else { continue };
        root.at_key(&item, Severity::Warning, "is not used yet by this version".to_owned());
        check(&item, shape);
    }
}

fn check(item: &Item<'_>, shape: &'static Shape) {
    match shape {
        Any => {}
        List(shape) => {
            for item in item.list().unwrap_or_default() {
                check(&item, shape);
            }
        }
        Keys(keys) => {
            let Some(mut section) = item.section() else { return };
            for (key, shape) in *keys {
                if let Some(item) = section.take(key) {
                    check(&item, shape);
                }
            }
            section.finish();
        }
    }
}

static SECTIONS: &[(&str, Shape)] = &[
    ("clients", List(&Keys(CLIENT))),
    ("email", Keys(EMAIL)),
    ("upstream_oauth2", Keys(&[("providers", List(&Keys(PROVIDER)))])),
    (
        "branding",
        Keys(&[
            ("service_name", Any),
            ("policy_uri", Any),
            ("tos_uri", Any),
            ("imprint", Any),
            ("logo_uri", Any),
        ]),
    ),
    ("captcha", Keys(&[("service", Any), ("site_key", Any), ("secret_key", Any), ("secret_key_file", Any)])),
    ("telemetry", Keys(&[("tracing", Keys(TRACING)), ("metrics", Keys(METRICS)), ("sentry", Keys(SENTRY))])),
    ("templates", Keys(&[("path", Any), ("assets_manifest", Any), ("translations_path", Any)])),
    ("policy", Keys(POLICY)),
    ("oauth", Keys(&[("device_code_grant_enabled", Any), ("device_code_user_code_auto_fill_enabled", Any)])),
    ("guest_invites", Keys(&[("enabled", Any), ("client_room_url", Any), ("invite_lifetime", Any)])),
];

static CLIENT: &[(&str, Shape)] = &[
    ("client_id", Any),
    ("client_auth_method", Any),
    ("client_name", Any),
    ("client_secret", Any),
    ("client_secret_file", Any),
    ("jwks", Any),
    ("jwks_uri", Any),
    ("redirect_uris", Any),
];

static EMAIL: &[(&str, Shape)] = &[
    ("from", Any),
    ("reply_to", Any),
    ("transport", Any),
    ("mode", Any),
    ("hostname", Any),
    ("port", Any),
    ("username", Any),
    ("password", Any),
    ("password_file", Any),
    ("command", Any),
];

static PROVIDER: &[(&str, Shape)] = &[
    ("id", Any),
    ("enabled", Any),
    ("synapse_idp_id", Any),
    ("issuer", Any),
    ("human_name", Any),
    ("brand_name", Any),
    ("client_id", Any),
    ("client_secret", Any),
    ("client_secret_file", Any),
    ("token_endpoint_auth_method", Any),
    ("token_endpoint_auth_signing_alg", Any),
    (
        "sign_in_with_apple",
        Keys(&[("private_key", Any), ("private_key_file", Any), ("team_id", Any), ("key_id", Any)]),
    ),
    ("id_token_signed_response_alg", Any),
    ("scope", Any),
    ("discovery_mode", Any),
    ("pkce_method", Any),
    ("fetch_userinfo", Any),
    ("userinfo_signed_response_alg", Any),
    ("userinfo_endpoint", Any),
    ("authorization_endpoint", Any),
    ("token_endpoint", Any),
    ("jwks_uri", Any),
    ("response_mode", Any),
    ("additional_authorization_parameters", Any),
    ("forward_login_hint", Any),
    ("on_backchannel_logout", Any),
    ("registration_token_required", Any),
    ("claims_imports", Keys(CLAIMS)),
];

static CLAIMS: &[(&str, Shape)] = &[
    ("subject", Keys(&[("template", Any)])),
    ("skip_confirmation", Any),
    ("localpart", Keys(&[("action", Any), ("template", Any), ("on_conflict", Any)])),
    ("displayname", Keys(&[("action", Any), ("template", Any)])),
    ("email", Keys(&[("action", Any), ("template", Any), ("set_email_verification", Any)])),
    ("account_name", Keys(&[("template", Any)])),
];

static TRACING: &[(&str, Shape)] =
    &[("propagators", Any), ("exporter", Any), ("endpoint", Any), ("sample_rate", Any)];

static METRICS: &[(&str, Shape)] = &[("exporter", Any), ("endpoint", Any)];

static SENTRY: &[(&str, Shape)] =
    &[("dsn", Any), ("environment", Any), ("sample_rate", Any), ("traces_sample_rate", Any)];

static POLICY: &[(&str, Shape)] = &[
    ("wasm_module", Any),
    ("client_registration_entrypoint", Any),
    ("register_entrypoint", Any),
    ("authorization_grant_entrypoint", Any),
    ("password_entrypoint", Any),
    ("email_entrypoint", Any),
    ("compat_login_entrypoint", Any),
    ("data", Any),
];
