//! `rtc`: MatrixRTC calls over a LiveKit server and its token service (MSC4143, MSC4195), both on `host` below `/livekit/`.
//!
//! What a client does: it finds the token service in the well-known document, gets a token there, and opens a WebSocket to LiveKit.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::expand::forward;
use super::{Authority, read_upstream};
use crate::reader::Item;
use crate::upstream::Upstreams;
use crate::{Rewrite, Route, Upstream};

/// `edge.matrix.rtc`.
#[derive(Debug)]
pub(crate) struct Rtc {
    livekit: Arc<Upstream>,
    token_service: Arc<Upstream>,
}

impl Rtc {
    /// Reads the section; upstreams that it makes from addresses are added.
    pub(super) fn read(item: &Item<'_>, upstreams: &mut Upstreams) -> Option<Self> {
        let mut section = item.section()?;
        let livekit = section.require("livekit", "say where LiveKit listens, such as http://localhost:7880");
        let livekit = livekit.and_then(|item| read_upstream(&item, "livekit", upstreams));
        let token_service = section.require(
            "token_service",
            "say where LiveKit's token service (lk-jwt-service) listens, such as http://localhost:8070",
        );
        let token_service = token_service.and_then(|item| read_upstream(&item, "token_service", upstreams));
        section.finish();
        Some(Self { livekit: livekit?, token_service: token_service? })
    }

    /// The routes on `host`; both programs serve from `/`.
    pub(super) fn routes(&self) -> [Route; 2] {
        [stripped(LIVEKIT, &self.livekit), stripped(TOKEN_SERVICE, &self.token_service)]
    }

    /// What clients find in the well-known document.
    pub(super) fn foci(&self, host: &Authority) -> Json {
        json!([{ "type": "livekit", "livekit_service_url": format!("https://{host}{TOKEN_SERVICE}") }])
    }
}

fn stripped(start: &str, upstream: &Arc<Upstream>) -> Route {
    Route { rewrite: Some(Rewrite::StripPrefix(start.to_owned())), ..forward(&format!("{start}/"), upstream) }
}

const LIVEKIT: &str = "/livekit/sfu";
const TOKEN_SERVICE: &str = "/livekit/jwt";
