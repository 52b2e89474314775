//! Two deployments that know of each other what servers on the internet do: a name. Each Synapse listens on a Unix socket in a
//! folder of its own, so that the other one, and every client, has to come through the edge.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};

use super::homeserver::{Front, domain, on_a_lasting_thread, run_client};
use super::relay::{Names, Relay};
use super::synapse::Listen;
use super::{Authority, Client, Folder, Homeserver, add_user};

/// Leads to alpha, whose certificate is not for this name.
pub(crate) const MISLEADING: &str = "gamma.test:8448";

/// Of every user of [`Peer::log_in`].
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// The body of a login with a password.
pub(crate) fn password_login(user: &str, password: &str) -> Value {
    json!({"type": "m.login.password", "identifier": {"type": "m.id.user", "user": user}, "password": password})
}

/// What the Synapses take. Less than their edges let through, which do not know of it.
const UPLOADS: &str = "12M";

/// Two servers, and who uses which way to them.
pub(crate) struct Federation {
    /// `alpha.test`: others find it by `.well-known/matrix/server`, on port 443.
    pub(crate) alpha: Peer,
    /// `beta.test:8448`: others find it by its name, on the federation port.
    pub(crate) beta: Peer,
    clients: Relay,
}

/// One of the two.
pub(crate) struct Peer {
    pub(crate) homeserver: Homeserver,
    /// The way that its Synapse takes to other servers.
    pub(crate) relay: Relay,
    /// Where its Synapse comes from.
    pub(crate) source: Ipv4Addr,
}

/// The two servers that all tests share, started by the first one that asks.
pub(crate) fn federation() -> &'static Federation {
    static SHARED: LazyLock<Federation> = LazyLock::new(|| on_a_lasting_thread(Federation::start));
    &SHARED
}

impl Federation {
    fn start() -> Self {
        let authority = Authority::new();
        let fronts = [front(&authority, "alpha.test"), front(&authority, "beta.test:8448")];
        let mut names: HashMap<String, SocketAddr> = fronts.iter().flat_map(names).collect();
        names.insert(MISLEADING.to_owned(), fronts[0].listener("federation"));
        let names: Names = Arc::new(names);
        let mut sources = [Ipv4Addr::new(127, 0, 0, 11), Ipv4Addr::new(127, 0, 0, 12)].into_iter();
        let starting = fronts.map(|front| {
            let source = sources.next().expect("as many as servers");
            let relay = Relay::start(source, Arc::clone(&names));
            let ca = front.certificates.ca.clone();
            // Each on a thread of its own, for starting Synapse takes a while.
            std::thread::spawn(move || {
                let more = format!(
                    "https_proxy: {}\nip_range_blocklist: []\nfederation_custom_ca_list: [{ca:?}]\n\
                     allow_public_rooms_over_federation: true\nroom_list_publication_rules: [{{action: allow}}]\n",
                    relay.url()
                );
                on_a_lasting_thread(move || Peer { homeserver: front.with_synapse(UPLOADS, &more), relay, source })
            })
        });
        let [alpha, beta] = starting.map(|thread| thread.join().expect("Synapse did not start, see above"));
        let clients = Relay::start(Ipv4Addr::LOCALHOST, names);
        Self { alpha, beta, clients }
    }

    /// Runs a script of `clients/` that may talk to both servers.
    pub(crate) fn run_client(&self, script: &str) {
        let servers = [&self.alpha.homeserver, &self.beta.homeserver];
        let arguments = json!({
            "servers": servers.map(Homeserver::describe),
            "proxy": self.clients.url(),
        });
        run_client(script, &arguments, &servers);
    }
}

/// Edge and auth service of one server.
fn front(authority: &Authority, server_name: &str) -> Front {
    let folder = Folder::shared();
    let domain = domain(server_name);
    let names = [domain, &format!("matrix.{domain}"), &format!("auth.{domain}")];
    let certificates = authority.issue(&folder, &names);
    let edge = format!(
        "  listeners:
    - {{name: https, tls: true, binds: [{{address: \"127.0.0.1:0\"}}]}}
    - {{name: federation, tls: true, binds: [{{address: \"127.0.0.1:0\"}}]}}
    - {{name: http, redirect_https: true, binds: [{{address: \"127.0.0.1:0\"}}]}}
  access_log: {{path: \"{}/access.log\", format: json}}
",
        folder.path().display()
    );
    let listen = Listen::Socket(folder.join("synapse.sock"));
    Front::start(folder, certificates, server_name, "federation_port: 8448", &edge, listen)
}

/// The names of a server with the ports that the world knows.
fn names(front: &Front) -> HashMap<String, SocketAddr> {
    let domain = domain(&front.server_name);
    let (https, federation) = (front.listener("https"), front.listener("federation"));
    [
        (format!("{domain}:443"), https),
        (format!("matrix.{domain}:443"), https),
        (format!("auth.{domain}:443"), https),
        (format!("{domain}:8448"), federation),
        (format!("matrix.{domain}:8448"), federation),
    ]
    .into()
}

impl Peer {
    /// A connection to one of its listeners, over TLS for `host`.
    pub(crate) fn client(&self, listener: &str, host: &str) -> Client {
        self.client_from(Ipv4Addr::LOCALHOST, listener, host)
    }

    /// The same from one of the addresses of 127.0.0.0/8.
    pub(crate) fn client_from(&self, source: Ipv4Addr, listener: &str, host: &str) -> Client {
        let front = &self.homeserver.front;
        Client::tls_from(source, &front.certificates, host, front.listener(listener))
    }

    /// Adds a user and logs it in; its token.
    pub(crate) fn log_in(&self, user: &str) -> String {
        let front = &self.homeserver.front;
        add_user(&front.configuration, user, PASSWORD, &[]);
        let host = format!("matrix.{}", domain(&front.server_name));
        let body = password_login(user, PASSWORD);
        let answer = self.client("https", &host).post(&host, "/_matrix/client/v3/login", None, &body);
        let answer = answer.expect_or(200, || self.homeserver.logs()).json();
        answer["access_token"].as_str().unwrap().to_owned()
    }

    /// The edge's access log so far.
    pub(crate) fn access_log(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.homeserver.front.folder.join("access.log")).unwrap();
        // The last line may be half-written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}
