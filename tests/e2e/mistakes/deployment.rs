//! The preset before upstreams that remember every byte, for mistakes that show in what Synapse is sent.

use std::net::SocketAddr;
use std::sync::Mutex;

use serde_json::json;

use crate::harness::{Certificates, Client, Folder, Gatehouse, Recorded, Reply, Upstream};

pub(super) const MATRIX: &str = "matrix.example.com";
pub(super) const AUTH: &str = "auth.example.com";
pub(super) const DOMAIN: &str = "example.com";

/// A running edge.
pub(super) struct Deployment {
    pub(super) synapse: Upstream,
    pub(super) auth: Upstream,
    pub(super) certificates: Certificates,
    _folder: Folder,
    gatehouse: Mutex<Gatehouse>,
}

/// Both upstreams say who they are.
pub(super) fn deploy() -> Deployment {
    deploy_before(|_| Reply::Json(200, json!({"by": "synapse"}).to_string()))
}

/// The same with answers of Synapse's; the auth service says who it is.
pub(super) fn deploy_before(synapse: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) -> Deployment {
    let folder = Folder::new();
    let certificates = Certificates::new(&folder, &[MATRIX, AUTH, DOMAIN]);
    let synapse = Upstream::answering(synapse);
    let auth = Upstream::answering(|_| Reply::Json(200, json!({"by": "auth"}).to_string()));
    folder.write("acme/token", "key authorization");
    // What certbot writes goes to the folder of the site that it is told of.
    let yaml = format!(
        r#"
data_dir: {data:?}
edge:
  matrix: {{server_name: {DOMAIN}, synapse: synapse, auth: auth}}
  listeners:
    - {{name: https, binds: [{{address: "127.0.0.1:0"}}], tls: true}}
    - {{name: federation, binds: [{{address: "127.0.0.1:0"}}], tls: true}}
    - {{name: http, binds: [{{address: "127.0.0.1:0"}}], redirect_https: true}}
    - {{name: balanced, binds: [{{address: "127.0.0.1:0"}}], proxy_protocol: {{from: [127.0.0.1/32]}}}}
  {tls}
  upstreams:
    synapse: {{servers: ["{synapse}"]}}
    auth: {{servers: ["{auth}"]}}
  sites:
    - hosts: [{DOMAIN}]
      routes: [{{prefix: /.well-known/acme-challenge/, static: {{root: {acme:?}}}}}]
"#,
        data = folder.path(),
        acme = folder.join("acme"),
        tls = certificates.yaml(),
        synapse = synapse.address,
        auth = auth.address,
    );
    let gatehouse = Mutex::new(Gatehouse::start(&folder, &yaml));
    Deployment { synapse, auth, certificates, _folder: folder, gatehouse }
}

impl Deployment {
    pub(super) fn address(&self, listener: &str) -> SocketAddr {
        self.gatehouse.lock().unwrap().tcp(listener)
    }

    /// A client of `https://HOST/`.
    pub(super) fn client(&self, host: &str) -> Client {
        Client::tls(&self.certificates, host, self.address("https"))
    }

    /// A client without TLS.
    pub(super) fn plain(&self, listener: &str) -> Client {
        Client::tcp(self.address(listener))
    }
}
