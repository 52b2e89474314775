//! Upgrades that work: under load, with requests and tunnels under way, twenty in a row, and from the side of the next process.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use super::super::harness::{
    Client, Folder, Gatehouse, Process, Reply, Upgradable, Upstream, gatehouse_command, pid, run_to_end,
};
use super::{Door, Load, control, descriptors, exists, until, until_quiet, yaml};

#[test]
fn nobody_notices_twenty_upgrades() {
    let folder = Folder::new();
    let upstream = Upstream::start();
    let mut running = Upgradable::start(&folder, &yaml(&folder, &upstream));
    let doors = [Door::Tcp(running.gatehouse.tcp("http")), Door::Unix(folder.join("edge.sock"))];
    let idle = until_quiet(|| descriptors(running.serving));
    let load = Load::start(&doors);
    load.wait_for(40);
    let mut numbers = vec![running.serving];
    for _ in 0..19 {
        running.replace();
        numbers.push(running.upgrade());
        load.wait_for(20);
    }
    let answered = load.end();
    assert!(answered > 400, "{answered}");
    numbers.push(running.upgrade());
    assert_eq!(
        until_quiet(|| descriptors(running.serving)),
        idle,
        "descriptors of the first process and of the last"
    );
    for old in &numbers[..20] {
        running.wait_until_gone(*old);
    }
    assert_eq!(running.lines_with("\"stopped\""), 20, "each ended as it should");
    assert!(exists(&control(&folder)) && exists(&folder.join("edge.sock")), "they are the last one's");
    running.stop();
    until("the last one says that it ends", || running.lines_with("\"stopped\"") == 21);
    assert!(!exists(&control(&folder)) && !exists(&folder.join("edge.sock")), "the last one removes them");
}

#[test]
fn what_has_begun_ends_where_it_began() {
    let folder = Folder::new();
    let upstream = Upstream::answering(|request| match request.target().as_str() {
        "/late" => Reply::Late(Duration::from_secs(3)),
        "/socket" => Reply::Echo,
        _ => Reply::Json(200, "{}".into()),
    });
    let admin = "  admin: {binds: [{address: \"127.0.0.1:0\"}]}\n  sites:";
    let yaml = yaml(&folder, &upstream).replace("  sites:", admin);
    let mut running = Upgradable::start(&folder, &yaml);
    let (address, admin) = (running.gatehouse.tcp("http"), running.gatehouse.tcp("admin"));
    let mut tunnel = Client::tcp(address);
    let upgrade = ["Host: x", "Connection: Upgrade", "Upgrade: websocket"];
    tunnel.request("GET /socket", &upgrade, b"").expect(101);
    let mut late = Client::tcp(address);
    late.send("GET /late HTTP/1.1\r\nHost: x\r\n\r\n");
    upstream.wait_for(|request| request.target() == "/late");

    let old = running.serving;
    running.upgrade();
    Client::tcp(address).get("x", "/new").expect(200);
    for _ in 0..40 {
        // Of the one that goes on, not of the one that drains.
        Client::tcp(admin).get("x", "/ready").expect(200);
    }
    let counted = || {
        let metrics = Client::tcp(admin).get("x", "/metrics").expect(200).text();
        let requests = "gatehouse_edge_requests_total{status=\"2xx\"} ";
        let count = metrics.lines().find_map(|line| line.strip_prefix(requests)?.parse::<u32>().ok());
        count.expect("always there")
    };
    // The first of these may have been accepted by the old one.
    until("the new one has answered ten", || {
        Client::tcp(address).get("x", "/new").expect(200);
        counted() >= 10
    });
    for _ in 0..20 {
        assert!(counted() >= 10, "the old one answers on the admin socket");
    }
    for text in ["still ", "here"] {
        tunnel.send(text);
        assert_eq!(tunnel.receive_bytes(text.len()), text.as_bytes());
    }
    assert_eq!(late.receive().expect(200).json()["late"], true);
    assert!(running.gatehouse.process.is_running(), "for its tunnel");
    assert_eq!(old, running.gatehouse.process.id());
    drop(tunnel);
    running.wait_until_gone(old);
    Client::tcp(address).get("x", "/new").expect(200);
    running.stop();
}

#[test]
fn the_next_process_reads_its_configuration_anew() {
    let folder = Folder::new();
    let upstream = Upstream::start();
    let first = yaml(&folder, &upstream);
    let mut running = Upgradable::start(&folder, &first);
    let address = running.gatehouse.tcp("http");
    let more = first
        .replace("threads: 2", "threads: 4")
        .replace("upstream: api}]", "respond: {status: 200, body: new}}]");
    folder.write(
        "gatehouse.yaml",
        more.replace(
            &format!("{}/edge.sock", folder.path().display()),
            &format!("{}/other.sock", folder.path().display()),
        ),
    );
    let old = running.serving;
    running.upgrade();
    running.wait_until_gone(old);
    for _ in 0..40 {
        assert_eq!(Client::tcp(address).get("x", "/").expect(200).text(), "new");
    }
    assert!(!exists(&folder.join("edge.sock")), "nobody serves it any more");
    assert!(exists(&folder.join("other.sock")));
    // Fewer threads than sockets: each of them is served.
    folder.write("gatehouse.yaml", first.replace("threads: 2", "threads: 1"));
    running.upgrade();
    for _ in 0..40 {
        Client::tcp(address).get("x", "/").expect(200);
    }
    running.stop();
}

#[test]
fn a_process_started_by_hand_takes_over() {
    let folder = Folder::new();
    let upstream = Upstream::start();
    let mut first = Gatehouse::start(&folder, &yaml(&folder, &upstream));
    let doors = [Door::Tcp(first.tcp("http")), Door::Unix(folder.join("edge.sock"))];
    let load = Load::start(&doors);
    load.wait_for(40);
    let mut command = gatehouse_command();
    command.args(["run", "--take-over", "-c"]).arg(&first.configuration);
    let mut second = Process::start("second", &mut command);
    assert_eq!(first.process.wait().code(), Some(0));
    load.wait_for(40);
    // By the path of the control socket, whatever `data_dir` is.
    let mut command = gatehouse_command();
    command.arg("run").arg("--take-over").arg(control(&folder)).arg("-c").arg(&first.configuration);
    let mut third = Process::start("third", &mut command);
    assert_eq!(second.wait().code(), Some(0));
    load.wait_for(40);
    load.end();
    assert_eq!(third.stop().code(), Some(0));
    assert!(!exists(&control(&folder)) && !exists(&folder.join("edge.sock")));
}

#[test]
fn inherited_sockets_go_with_it() {
    let folder = Folder::new();
    let upstream = Upstream::start();
    let socket = folder.join("inherited.sock");
    let yaml = format!(
        r#"
data_dir: {folder}
edge:
  listeners: [{{name: tcp, binds: [{{fd: 0}}]}}]
  upstreams: {{api: {{servers: ["{address}"]}}}}
  sites: [{{hosts: ["_"], routes: [{{prefix: /, upstream: api}}]}}]
"#,
        folder = folder.path().display(),
        address = upstream.address
    );
    let mut first = Gatehouse::start_inheriting(&folder, &yaml, &socket);
    let address = first.tcp("tcp");
    let take_over = || {
        let mut command = gatehouse_command();
        command.args(["run", "--take-over", "-c"]).arg(folder.join("gatehouse.yaml"));
        Process::start("next", &mut command)
    };
    let mut second = take_over();
    assert_eq!(first.process.wait().code(), Some(0));
    Client::tcp(address).get("x", "/").expect(200);
    // The other one was inherited too, and nobody has asked for it until now.
    folder.write("gatehouse.yaml", yaml.replace("{fd: 0}", "{fd: 0}, {fd: 1, kind: unix}"));
    let mut third = take_over();
    assert_eq!(second.wait().code(), Some(0));
    Client::tcp(address).get("x", "/").expect(200);
    let answer = Door::Unix(socket.clone());
    let load = Load::start(&[answer]);
    load.wait_for(4);
    load.end();
    assert_eq!(third.stop().code(), Some(0));
    assert!(exists(&socket), "whoever made the socket removes it");
}

#[test]
fn a_drain_is_not_disturbed_by_what_is_asked_for_meanwhile() {
    let folder = Folder::new();
    let upstream = Upstream::answering(|_| Reply::Late(Duration::from_secs(4)));
    let mut running = Upgradable::start(&folder, &yaml(&folder, &upstream));
    let mut client = Client::tcp(running.gatehouse.tcp("http"));
    client.send("GET /late HTTP/1.1\r\nHost: x\r\n\r\n");
    upstream.wait_for(|request| request.target() == "/late");
    rustix::process::kill_process(pid(running.serving), Signal::TERM).unwrap();
    running.gatehouse.process.wait_for("that it stops", |line| line.contains("stopping").then_some(()));
    for errand in ["reload", "upgrade"] {
        let asked = running.ask(errand);
        assert_eq!(asked.code, Some(1), "{}", asked.text);
        assert!(asked.text.contains("finishes its last requests"), "{}", asked.text);
    }
    assert_eq!(client.receive().expect(200).json()["late"], true);
    assert_eq!(running.gatehouse.process.wait().code(), Some(0));
    let asked = running.ask("reload");
    assert_eq!(asked.code, Some(1));
    assert!(asked.text.contains("nothing runs with this data_dir"), "{}", asked.text);
}

#[test]
fn a_reload_while_another_process_takes_over_is_done_by_that_one() {
    let folder = Folder::new();
    let upstream = Upstream::start();
    let mut running = Upgradable::start(&folder, &yaml(&folder, &upstream));
    let address = running.gatehouse.tcp("http");
    let configuration = running.gatehouse.configuration.clone();
    let load = Load::start(&[Door::Tcp(address)]);
    let (done, reloads) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let reloading = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let mut command = gatehouse_command();
                let output = run_to_end(command.arg("reload").arg("-c").arg(&configuration), "");
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert_eq!(output.status.code(), Some(0), "{said}");
                reloads.fetch_add(1, Ordering::Relaxed);
            }
        });
        for _ in 0..10 {
            running.upgrade();
            load.wait_for(5);
            let before = reloads.load(Ordering::Relaxed);
            until("there is a reload", || {
                reloads.load(Ordering::Relaxed) > before || reloading.is_finished()
            });
        }
        done.store(true, Ordering::Relaxed);
    });
    load.end();
    running.stop();
}
