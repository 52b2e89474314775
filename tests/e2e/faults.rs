//! What breaks around us, and what must hold all the same.

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::harness::{
    Answer, Client, FakeSynapse, Folder, Gatehouse, Reply, SHARED_SECRET, Upstream, add_user, auth_yaml,
};

const HOST: &str = "matrix.example.com";
const PASSWORD: &str = "correct horse battery staple";

/// An edge with the guide's two upstreams, on a plain listener; an upstream may be silent for a second.
fn edge(folder: &Folder, auth: &str, synapse: &str) -> Gatehouse {
    let yaml = format!(
        r#"
edge:
  timeouts: {{upstream_read: 1s}}
  listeners: [{{name: http, binds: [{{address: "127.0.0.1:0"}}]}}]
  upstreams:
    auth: {{servers: ["{auth}"]}}
    synapse: {{servers: ["{synapse}"]}}
  sites:
    - hosts: [{HOST}]
      routes:
        - {{regex: "^/_matrix/client/(.*)/(login|logout|refresh)", upstream: auth}}
        - {{prefix: /, upstream: synapse}}
"#
    );
    Gatehouse::start(folder, &yaml)
}

/// An address that nobody listens on; held so that nobody else gets it.
fn dead() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // Bound with another address of loopback, the port is free on this one and cannot be handed out meanwhile by chance.
    let address = listener.local_addr().unwrap();
    (listener, format!("127.0.0.77:{}", address.port()))
}

fn login_body(user: &str) -> Value {
    json!({"type": "m.login.password", "identifier": {"type": "m.id.user", "user": user}, "password": PASSWORD})
}

fn is_our_matrix_error(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.json()["errcode"], "M_UNKNOWN");
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
}

/// Asks as a browser does before it sends a request of a web client on another origin.
fn expect_good_preflight(edge: &mut Gatehouse, target: &str) {
    let fields = [
        format!("Host: {HOST}"),
        "Origin: https://app.example".to_owned(),
        "Access-Control-Request-Method: PUT".to_owned(),
        "Access-Control-Request-Headers: authorization,content-type".to_owned(),
    ];
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    let answer = edge.client("http").request(&format!("OPTIONS {target}"), &fields, b"").expect(204);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    let allows = |name: &str, value: &str| {
        let allowed = answer.header(name).unwrap_or_default().to_ascii_lowercase();
        assert!(allowed.split(',').any(|allowed| allowed.trim() == value), "{name}: {allowed}");
    };
    allows("access-control-allow-methods", "put");
    allows("access-control-allow-headers", "authorization");
    allows("access-control-allow-headers", "content-type");
}

#[test]
fn with_the_auth_service_down_logins_fail_and_everything_else_works() {
    let folder = Folder::new();
    let synapse = Upstream::start();
    let (_held, auth) = dead();
    let mut edge = edge(&folder, &auth, &synapse.address.to_string());
    let answer = edge.client("http").post(HOST, "/_matrix/client/v3/login", None, &login_body("alice"));
    is_our_matrix_error(&answer, 502);
    edge.client("http").get(HOST, "/_matrix/client/versions").expect(200);
}

#[test]
fn with_synapse_down_requests_fail_with_a_matrix_error() {
    let folder = Folder::new();
    let (_held, synapse) = dead();
    let (_held_too, auth) = dead();
    let mut edge = edge(&folder, &auth, &synapse);
    is_our_matrix_error(&edge.client("http").get(HOST, "/_matrix/client/versions"), 502);
    expect_good_preflight(&mut edge, "/_matrix/client/v3/rooms/!r:example.com/send/m.room.message/1");
    expect_good_preflight(&mut edge, "/_matrix/client/v3/login");
    let page = edge.client("http").get(HOST, "/page").expect(502);
    assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
}

#[test]
fn with_synapse_hanging_requests_fail_with_a_matrix_error() {
    let folder = Folder::new();
    let synapse = Upstream::answering(|_| Reply::Silence);
    let (_held, auth) = dead();
    let mut edge = edge(&folder, &auth, &synapse.address.to_string());
    let answer = edge.client("http").get(HOST, "/_matrix/client/v3/sync");
    is_our_matrix_error(&answer, 504);
    assert_eq!(answer.json()["error"], "The server behind this proxy did not answer in time");
    expect_good_preflight(&mut edge, "/_matrix/client/v3/sync");
}

#[test]
fn an_upstream_that_closes_in_the_middle_is_not_a_whole_answer() {
    let folder = Folder::new();
    let synapse = Upstream::answering(|request| match request.target().as_str() {
        "/_matrix/cut" => {
            Reply::BytesThenClose(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf".to_vec())
        }
        "/_matrix/cut-chunks" => Reply::BytesThenClose(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n".to_vec(),
        ),
        "/_matrix/nothing" => Reply::BytesThenClose(Vec::new()),
        "/_matrix/nonsense" => Reply::BytesThenClose(b"\0\0\0\0not http\r\n\r\n".to_vec()),
        _ => Reply::Json(200, "{}".to_owned()),
    });
    let (_held, auth) = dead();
    let mut edge = edge(&folder, &auth, &synapse.address.to_string());
    for target in ["/_matrix/cut", "/_matrix/cut-chunks"] {
        let mut client = edge.client("http");
        client.send(format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        assert!(client.try_receive().is_none(), "{target} looks whole");
        edge.client("http").get(HOST, "/_matrix/fine").expect(200);
    }
    for target in ["/_matrix/nothing", "/_matrix/nonsense"] {
        is_our_matrix_error(&edge.client("http").get(HOST, target), 502);
    }
}

#[test]
fn a_client_that_vanishes_in_the_middle_of_an_upload_leaves_nothing_behind() {
    let folder = Folder::new();
    let synapse = Upstream::start();
    let (_held, auth) = dead();
    let mut edge = edge(&folder, &auth, &synapse.address.to_string());
    let mut client = edge.client("http");
    client.send(format!("POST /_matrix/up HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000000\r\n\r\n"));
    client.send(vec![b'x'; 500_000]);
    client.vanish();
    let seen = synapse.wait_for(|request| request.target() == "/_matrix/up");
    assert!(!seen.complete);
    edge.client("http").get(HOST, "/_matrix/fine").expect(200);
    assert!(edge.process.is_running());
}

/// `gatehouse-auth` on a plain listener with `/oauth2/introspect`, in `data`.
fn auth_service(folder: &Folder, data: &Path, synapse: &str) -> Gatehouse {
    let yaml = format!(
        "{}\
http:
  public_base: https://auth.example.com/
  listeners:
    - name: web
      resources: [{{name: compat}}, {{name: oauth}}, {{name: health}}]
      binds: [{{address: \"127.0.0.1:0\"}}]
rate_limiting:
  login:
    per_ip: {{burst: 1000, per_second: 100}}
    per_account: {{burst: 1000, per_second: 100}}
",
        auth_yaml(data, synapse)
    );
    Gatehouse::start_auth(folder, &yaml)
}

fn introspect(auth: &mut Gatehouse, token: &str) -> bool {
    let body = format!("token={token}&token_type_hint=access_token");
    let answer = auth.client("web").request(
        "POST /oauth2/introspect",
        &[
            "Host: localhost",
            &format!("Authorization: Bearer {SHARED_SECRET}"),
            "Content-Type: application/x-www-form-urlencoded",
        ],
        body.as_bytes(),
    );
    answer.expect(200).json()["active"].as_bool().unwrap()
}

#[test]
fn a_login_while_synapse_is_down_hands_out_no_token() {
    let folder = Folder::new();
    let (_held, synapse) = dead();
    let mut auth = auth_service(&folder, folder.path(), &format!("http://{synapse}/"));
    add_user(&auth.configuration, "alice", PASSWORD, &[]);
    let answer = auth.client("web").post("localhost", "/_matrix/client/v3/login", None, &login_body("alice"));
    assert!((500..600).contains(&answer.status), "{}", answer.text());
    assert!(answer.json()["errcode"].is_string());
    assert!(answer.json()["access_token"].is_null());
}

#[test]
fn a_kill_during_logins_loses_no_session_that_was_handed_out() {
    let folder = Folder::new();
    let synapse = FakeSynapse::start();
    let mut handed_out: Vec<String> = Vec::new();
    for round in 0..3 {
        let mut auth = auth_service(&folder, folder.path(), &synapse.url());
        if round == 0 {
            add_user(&auth.configuration, "alice", PASSWORD, &[]);
        }
        let address = auth.tcp("web");
        for token in &handed_out {
            assert!(introspect(&mut auth, token), "a session is lost after {round} kills");
        }
        let tokens = Mutex::new(Vec::new());
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut client = Client::tcp(address);
                    while !stop.load(Ordering::Relaxed) {
                        let body = login_body("alice").to_string();
                        let head = format!(
                            "POST /_matrix/client/v3/login HTTP/1.1\r\nHost: localhost\r\n\
                             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                            body.len()
                        );
                        if client.try_send(head).is_err() {
                            return;
                        }
                        let Some(answer) = client.try_receive() else { return };
                        let answer = answer.expect(200).json();
                        let token = answer["access_token"].as_str().unwrap().to_owned();
                        let mut tokens = tokens.lock().unwrap();
                        tokens.push(token);
                        if tokens.len() >= 25 {
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                });
            }
            // Killed in the middle: the other threads have a login under way when this one sees enough of them.
            while tokens.lock().unwrap().len() < 20 {
                assert!(auth.process.is_running(), "{}", auth.process.log());
                std::thread::yield_now();
            }
            auth.process.kill();
        });
        handed_out.append(&mut tokens.into_inner().unwrap());
    }
    let mut auth = auth_service(&folder, folder.path(), &synapse.url());
    assert!(handed_out.len() >= 60, "{}", handed_out.len());
    for token in &handed_out {
        assert!(introspect(&mut auth, token), "a session is lost");
    }
}

/// A small file system of its own.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    /// `None` when this machine does not let us mount one.
    fn mount(at: &'a Path) -> Option<Self> {
        std::fs::create_dir(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(at);
        mount.output().is_ok_and(|output| output.status.success()).then_some(Self(at))
    }

    /// Takes all that is left.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).output();
    }
}

#[test]
fn a_full_disk_refuses_logins_keeps_sessions_and_is_over_when_there_is_room() {
    let folder = Folder::new();
    let data = folder.join("data");
    let Some(disk) = SmallDisk::mount(&data) else {
        eprintln!("note: not allowed to mount a small file system, so a full disk is not tested");
        return;
    };
    let synapse = FakeSynapse::start();
    let mut auth = auth_service(&folder, &data, &synapse.url());
    add_user(&auth.configuration, "alice", PASSWORD, &[]);
    let login = |auth: &mut Gatehouse| {
        auth.client("web").post("localhost", "/_matrix/client/v3/login", None, &login_body("alice"))
    };
    let token = login(&mut auth).expect(200).json()["access_token"].as_str().unwrap().to_owned();

    disk.fill();
    // The write-ahead log has room for a few more pages before it has to grow.
    let refused = (0..200).map(|_| login(&mut auth)).find(|answer| answer.status != 200);
    let refused = refused.expect("the disk is full, and logins go on");
    assert!((500..600).contains(&refused.status), "{}", refused.text());
    assert!(refused.json()["errcode"].is_string());
    assert!(introspect(&mut auth, &token), "sessions are still known");

    disk.free();
    let answer = login(&mut auth).expect(200).json();
    assert!(introspect(&mut auth, answer["access_token"].as_str().unwrap()));
    assert!(introspect(&mut auth, &token));
    assert!(auth.stop_cleanly());
    drop(disk);
}
