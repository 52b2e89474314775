//! A stand-in for Synapse, for tests that need to decide what the homeserver answers.

use std::collections::BTreeSet;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::{Recorded, Reply, Upstream};

/// Answers the auth service as Synapse would, and remembers what it was told.
pub(crate) struct FakeSynapse {
    pub(crate) upstream: Upstream,
}

impl FakeSynapse {
    pub(crate) fn start() -> Self {
        let users = Mutex::new(BTreeSet::new());
        Self { upstream: Upstream::answering(move |request| answer(&users, request)) }
    }

    /// One that answers 500 whenever `fails` says so.
    pub(crate) fn start_failing(fails: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        let users = Mutex::new(BTreeSet::new());
        Self {
            upstream: Upstream::answering(move |request| {
                if fails() { Reply::Json(500, "{}".to_owned()) } else { answer(&users, request) }
            }),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}/", self.upstream.url())
    }
}

/// Facts of Synapse 1.163's `/_synapse/mas/*`; everything else is `{}`.
fn answer(users: &Mutex<BTreeSet<String>>, request: &Recorded) -> Reply {
    let target = request.target();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let body: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
    let localpart = body["localpart"].as_str().unwrap_or_default().to_owned();
    let mut users = users.lock().unwrap();
    let asked = query.strip_prefix("localpart=").unwrap_or_default();
    match path.strip_prefix("/_synapse/mas/") {
        Some("query_user") if !users.contains(asked) => {
            Reply::Json(404, json!({"errcode": "M_NOT_FOUND", "error": "no such user"}).to_string())
        }
        Some("query_user") => Reply::Json(
            200,
            json!({
                "user_id": format!("@{asked}:localhost"), "display_name": null, "avatar_url": null,
                "is_suspended": false, "is_deactivated": false,
            })
            .to_string(),
        ),
        Some("provision_user") => {
            let status = if users.insert(localpart) { 201 } else { 200 };
            Reply::Json(status, "{}".to_owned())
        }
        Some("delete_device") => Reply::Bytes(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
        _ => Reply::Json(200, "{}".to_owned()),
    }
}
