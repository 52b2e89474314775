//! Maintenance mode: switched by the command, noticed by the edge that runs, kept over a restart.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::harness::{Answer, Client, Folder, Gatehouse, Reply, Upstream, gatehouse_command, run_to_end};

const HOST: &str = "matrix.example.com";
const VERSIONS: &str = "/_matrix/client/versions";

/// The preset, a site with a file, a fixed answer and a page of an upstream, and the admin socket.
fn yaml(folder: &Folder, synapse: &Upstream) -> String {
    folder.write("www/index.html", "a file");
    format!(
        r#"
data_dir: {data:?}
edge:
  matrix: {{server_name: example.com, synapse: "{synapse}", auth: "{synapse}", federation_port: false}}
  listeners: [{{name: http, binds: [{{address: "127.0.0.1:0"}}]}}]
  sites:
    - hosts: [www.example.com]
      routes:
        - {{prefix: /static/, static: {{root: {www:?}}}}}
        - {{path: /fixed, respond: {{body: fixed}}}}
        - {{path: /moved, redirect: "https://example.org/"}}
        - {{prefix: /, upstream: synapse}}
  admin: {{binds: [{{address: "127.0.0.1:0"}}]}}
"#,
        data = folder.path(),
        synapse = synapse.url(),
        www = folder.join("www"),
    )
}

struct Deployment {
    edge: Gatehouse,
    configuration: String,
}

impl Deployment {
    fn start(folder: &Folder, synapse: &Upstream) -> Self {
        let edge = Gatehouse::start(folder, &yaml(folder, synapse));
        let configuration = edge.configuration.to_str().unwrap().to_owned();
        Self { edge, configuration }
    }

    fn maintenance(&self, arguments: &[&str]) -> Output {
        let mut command = gatehouse_command();
        command.arg("maintenance").args(arguments).arg("-c").arg(&self.configuration);
        run_to_end(&mut command, "")
    }

    /// What the command says when it works.
    #[track_caller]
    fn say(&self, arguments: &[&str]) -> String {
        let output = self.maintenance(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn get(&mut self, host: &str, target: &str) -> Answer {
        self.edge.client("http").get(host, target)
    }

    /// Waits until the edge has noticed, which takes about a second.
    fn until(&mut self, status: u16) {
        let asked = Instant::now();
        while self.get(HOST, VERSIONS).status != status {
            assert!(asked.elapsed() < Duration::from_secs(10), "the edge does not notice");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn admin(&mut self, target: &str) -> Answer {
        let address: SocketAddr = self.edge.address("admin").parse().unwrap();
        Client::tcp(address).get("localhost", target)
    }
}

#[test]
fn requests_for_upstreams_are_told_and_everything_else_goes_on() {
    let (folder, synapse) = (Folder::new(), Upstream::start());
    let mut deployment = Deployment::start(&folder, &synapse);
    deployment.get(HOST, VERSIONS).expect(200);
    let said = deployment.say(&[
        "on",
        "--message",
        "Moving <script>alert(1)</script> to a new disk",
        "--retry-after",
        "90s",
    ]);
    assert!(said.starts_with("maintenance mode is on"), "{said}");
    deployment.until(503);
    let before = synapse.requests().len();

    for target in
        [VERSIONS, "/_matrix/client/v3/login", "/_matrix/federation/v1/version", "/_synapse/client/x"]
    {
        let answer = deployment.get(HOST, target).expect(503);
        assert_eq!(
            answer.json(),
            json!({
                "errcode": "M_UNKNOWN",
                "error": "Moving <script>alert(1)</script> to a new disk",
                "retry_after_ms": 90_000,
            })
        );
        assert_eq!(answer.header("retry-after"), Some("90"));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(answer.header("access-control-expose-headers"), Some("Retry-After"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    let page = deployment.get("www.example.com", "/").expect(503);
    assert!(
        page.text().contains("Moving &#60;script&#62;alert(1)&#60;/script&#62; to a new disk"),
        "{}",
        page.text()
    );
    assert!(page.text().contains("<h1>Down for maintenance</h1>") && !page.text().contains("<script>"));
    assert_eq!(page.header("retry-after"), Some("90"));
    deployment.get("auth.example.com", "/login").expect(503);
    let fields =
        [&*format!("Host: {HOST}"), "Origin: https://app.example", "Access-Control-Request-Method: PUT"];
    let preflight =
        deployment.edge.client("http").request("OPTIONS /_matrix/client/v3/login", &fields, b"").expect(204);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
    // An upload gets its answer, too, and not a cut connection.
    let upload = vec![b'x'; 3 << 20];
    let host = format!("Host: {HOST}");
    deployment.edge.client("http").request("POST /_matrix/media/v3/upload", &[&host], &upload).expect(503);
    assert_eq!(synapse.requests().len(), before, "nobody behind us is asked");

    assert_eq!(deployment.get("www.example.com", "/static/index.html").expect(200).text(), "a file");
    assert_eq!(deployment.get("www.example.com", "/fixed").expect(200).text(), "fixed");
    deployment.get("www.example.com", "/moved").expect(308);
    let known = deployment.get("example.com", "/.well-known/matrix/client").expect(200);
    assert_eq!(known.json()["m.homeserver"]["base_url"], "https://matrix.example.com");
    deployment.get(HOST, "/_synapse/mas/x").expect(404);
    deployment.admin("/health").expect(200);
    deployment.admin("/ready").expect(200);
    assert!(deployment.admin("/metrics").text().contains("\ngatehouse_edge_maintenance 1\n"));

    assert_eq!(deployment.say(&["off"]), "maintenance mode is off\n");
    deployment.until(200);
    assert!(deployment.admin("/metrics").text().contains("\ngatehouse_edge_maintenance 0\n"));
    deployment.edge.process.wait_for("a line of the access log that says why", |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["error"] == "maintenance" && line["status"] == 503 && line["route"] == "/_matrix/")
            .then_some(())
    });
    let log = deployment.edge.process.log();
    for (line, count) in [("maintenance mode is on", 1), ("maintenance mode is off", 1)] {
        assert_eq!(log.matches(line).count(), count, "{log}");
    }
}

#[test]
fn what_is_in_flight_finishes() {
    let folder = Folder::new();
    let synapse = Upstream::answering(|request| match request.target().as_str() {
        "/_matrix/client/v3/sync" => Reply::Late(Duration::from_secs(5)),
        "/_matrix/socket" => Reply::Echo,
        _ => Reply::Json(200, "{}".to_owned()),
    });
    let mut deployment = Deployment::start(&folder, &synapse);
    let mut poll = deployment.edge.client("http");
    poll.send(format!("GET /_matrix/client/v3/sync HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    synapse.wait_for(|request| request.target() == "/_matrix/client/v3/sync");
    let mut upload = deployment.edge.client("http");
    upload.send(format!("POST /_matrix/upload HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 4\r\n\r\nha"));
    let mut socket = deployment.edge.client("http");
    socket.send(format!(
        "GET /_matrix/socket HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    ));
    assert_eq!(socket.receive().status, 101);
    let mut idle = deployment.edge.client("http");
    idle.get(HOST, VERSIONS).expect(200);

    deployment.say(&["on"]);
    deployment.until(503);
    upload.send("lf");
    upload.receive().expect(200);
    socket.send("hello");
    assert_eq!(socket.receive_bytes(5), b"hello");
    assert_eq!(poll.receive().expect(200).json()["late"], true);
    // The next request on a connection that was there before is a new request.
    let answer = idle.get(HOST, VERSIONS).expect(503).json();
    assert_eq!(answer["error"], "This server is down for maintenance and will be back soon");
    assert_eq!(answer["retry_after_ms"], 600_000);
    deployment.say(&["off"]);
    deployment.until(200);
    idle.get(HOST, VERSIONS).expect(200);
}

#[test]
fn the_mode_survives_a_restart() {
    let (folder, synapse) = (Folder::new(), Upstream::start());
    let mut deployment = Deployment::start(&folder, &synapse);
    deployment.say(&["on", "--message", "still here"]);
    deployment.until(503);
    assert!(deployment.edge.stop_cleanly());
    let before = synapse.requests().len();
    // Switched while nothing runs, too.
    deployment.say(&["on", "--message", "said while down"]);
    let mut again = Deployment::start(&folder, &synapse);
    assert_eq!(again.get(HOST, VERSIONS).expect(503).json()["error"], "said while down");
    assert_eq!(synapse.requests().len(), before, "not even the first request after the start passes");
    again.edge.process.kill();
    let mut again = Deployment::start(&folder, &synapse);
    again.get(HOST, VERSIONS).expect(503);
    again.say(&["off"]);
    again.until(200);
}

#[test]
fn allowed_clients_are_served_as_ever() {
    let (folder, synapse) = (Folder::new(), Upstream::start());
    let mut deployment = Deployment::start(&folder, &synapse);
    deployment.say(&["on", "--allow", "127.0.0.2", "--allow", "2001:db8::/32"]);
    deployment.until(503);
    let address = deployment.edge.tcp("http");
    let from = |last| Client::tcp_from(Ipv4Addr::new(127, 0, 0, last), address).get(HOST, VERSIONS).status;
    assert_eq!((from(1), from(2), from(3)), (503, 200, 503));
    // Nobody can say that they are somebody else.
    let fields = [&*format!("Host: {HOST}"), "X-Forwarded-For: 127.0.0.2", "Forwarded: for=127.0.0.2"];
    Client::tcp(address).request(&format!("GET {VERSIONS}"), &fields, b"").expect(503);
    // A change of the list is noticed as well.
    deployment.say(&["on", "--allow", "127.0.0.1"]);
    deployment.until(200);
}

#[test]
fn a_faulty_file_is_reported_once_and_changes_nothing() {
    let (folder, synapse) = (Folder::new(), Upstream::start());
    let mut deployment = Deployment::start(&folder, &synapse);
    deployment.say(&["on", "--message", "last good state"]);
    deployment.until(503);
    folder.write("maintenance.json", "{\"message\": ");
    let reported = |line: &str| line.contains("it stays on").then(|| line.to_owned());
    let line = deployment.edge.process.wait_for("that the file is faulty", reported);
    assert!(line.contains("maintenance.json is faulty"), "{line}");
    // For a report each second there would be several by then.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(deployment.edge.process.log().matches("it stays on").count(), 1);
    assert_eq!(deployment.get(HOST, VERSIONS).expect(503).json()["error"], "last good state");
    let status = deployment.maintenance(&["status"]);
    assert_eq!(status.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&status.stderr).contains("maintenance.json is faulty"), "{status:?}");
    deployment.say(&["off"]);
    deployment.until(200);
}

#[test]
fn the_command_says_what_is() {
    let (folder, synapse) = (Folder::new(), Upstream::start());
    let configuration = folder.write("gatehouse.yaml", yaml(&folder, &synapse));
    let run = |arguments: &[&str]| {
        let mut command = gatehouse_command();
        command.arg("maintenance").args(arguments).arg("-c").arg(&configuration);
        let output = run_to_end(&mut command, "");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let status = || -> Value { serde_json::from_str(&run(&["status", "--json"])).unwrap() };
    assert_eq!(run(&["status"]), "maintenance mode is off\n");
    assert_eq!(status(), json!({"maintenance": false}));
    assert_eq!(run(&["off"]), "maintenance mode is off, and was before\n");

    run(&["on", "--message", "  new disk ", "--retry-after", "2h", "--allow", "10.0.0.1/8"]);
    let file = folder.join("maintenance.json");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    let shown = status();
    assert!(shown["since"].as_u64().is_some_and(|since| since > 1_700_000_000), "{shown}");
    assert_eq!(
        (&shown["maintenance"], &shown["message"], &shown["retry_after_secs"], &shown["allow"]),
        (&json!(true), &json!("new disk"), &json!(7200), &json!(["10.0.0.0/8"]))
    );
    let text = run(&["status"]);
    for line in
        ["maintenance mode is on", "message:     new disk", "retry after: 7200 s", "allowed:     10.0.0.0/8"]
    {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    run(&["on"]);
    assert_eq!(status()["allow"], json!([]), "said anew, not added to");
    assert_eq!(run(&["off"]), "maintenance mode is off\n");
    assert!(!file.exists());
}

#[test]
fn the_command_refuses_what_cannot_be() {
    let (folder, synapse) = (Folder::new(), Upstream::start());
    let good = folder.write("gatehouse.yaml", yaml(&folder, &synapse));
    let fails = |arguments: &[&str], configuration: &Path, code: i32, why: &str| {
        let mut command = gatehouse_command();
        command.arg("maintenance").args(arguments).arg("-c").arg(configuration);
        let output = run_to_end(&mut command, "");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(why), "{arguments:?}: {said}");
    };
    fails(&["on", "--message", ""], &good, 1, "the message is empty");
    fails(&["on", "--message", "a\nb"], &good, 1, "one line without control characters");
    fails(&["on", "--message", &"x".repeat(501)], &good, 1, "501 characters, at most 500");
    fails(&["on", "--retry-after", "10"], &good, 2, "is not a duration");
    fails(&["on", "--retry-after", "31d"], &good, 1, "1s to 30d");
    fails(&["on", "--allow", "everybody"], &good, 2, "is not a network");
    fails(&["on"], &folder.join("absent.yaml"), 78, "absent.yaml");
    assert!(!folder.join("maintenance.json").exists());

    let text = yaml(&folder, &synapse);
    let data = format!("data_dir: {:?}", folder.path());
    let elsewhere = folder.write("missing.yaml", text.replace(&data, "data_dir: /nonexistent/data"));
    for command in ["on", "off"] {
        fails(&[command], &elsewhere, 1, "there is no folder /nonexistent/data, which is the data_dir");
    }
    // Nobody, not even root, can make a file in there.
    let proc = folder.write("proc.yaml", text.replace(&data, "data_dir: /proc"));
    fails(&["on"], &proc, 1, "cannot write /proc/maintenance.json");
    let auth = folder.write("auth.yaml", "http: {}\nmatrix: {secret: x}\n");
    fails(&["on"], &auth, 1, "the configuration has no edge");
}
