//! Sockets that somebody else has bound: systemd's own `systemd-socket-activate`, and a stand-in for a service manager that keeps
//! them while the program is restarted.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;
use serde_json::Value;

use super::harness::{
    Client, FakeSynapse, Folder, Process, Upstream, auth_command, auth_yaml, free_port, gatehouse_command,
    program, run_to_end,
};

/// `systemd-socket-activate` with these addresses and their names, which starts the program at the first connection.
fn activated(listen: &[(&str, &str)], what: &Command, arguments: &[&str], configuration: &Path) -> Process {
    let mut command = Command::new(program("systemd-socket-activate"));
    for (address, _) in listen {
        command.arg("-l").arg(address);
    }
    let names: Vec<_> = listen.iter().map(|(_, name)| *name).collect();
    command.arg(format!("--fdname={}", names.join(":"))).arg(what.get_program());
    command.args(arguments).arg("-c").arg(configuration);
    for name in ["GATEHOUSE_CONFIG", "GATEHOUSE_LOG", "GATEHOUSE_TAKE_OVER", "NOTIFY_SOCKET"] {
        command.env_remove(name);
    }
    let mut process = Process::start("systemd-socket-activate", &mut command);
    process.wait_for("that it listens", |line| line.contains("Listening on").then_some(()));
    process
}

fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

fn edge(folder: &Folder, upstream: &Upstream, binds: [&str; 2]) -> String {
    format!(
        r#"
data_dir: {data:?}
edge:
  listeners:
    - {{name: first, binds: [{first}]}}
    - {{name: second, binds: [{second}]}}
  upstreams: {{api: {{servers: ["{upstream}"]}}}}
  sites:
    - {{hosts: ["_"], listeners: [first], routes: [{{path: /which, respond: {{body: first}}}}, {{prefix: /, upstream: api}}]}}
    - {{hosts: ["_"], name: others, listeners: [second], routes: [{{path: /which, respond: {{body: second}}}}]}}
"#,
        data = folder.path(),
        upstream = upstream.address,
        first = binds[0],
        second = binds[1],
    )
}

fn which(address: SocketAddr) -> String {
    Client::tcp(address).get("x", "/which").expect(200).text()
}

/// The addresses that a listener was reported with.
fn listening(process: &mut Process, listener: &str) -> String {
    process.wait_for(&format!("where {listener} listens"), |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["message"] == "listening" && line["listener"] == listener)
            .then(|| line["address"].as_str().map(str::to_owned))?
    })
}

#[test]
fn sockets_of_systemd_are_found_by_name_by_address_and_by_place() {
    let upstream = Upstream::start();
    let [one, two] = [loopback(), loopback()];
    let (by_one, by_two) =
        (format!("{{address: \"{one}\"}}"), format!("{{host: 127.0.0.1, port: {}}}", two.port()));
    // systemd hands them over as `one`, `two`; each time the first listener wants `two`.
    for binds in [
        ["{fd_name: two}", "{fd_name: one, kind: tcp}"],
        [&by_two, &by_one],
        ["{fd: 1}", "{fd: 0}"],
        ["{fd_name: two}", &by_one],
    ] {
        let folder = Folder::new();
        let path = folder.write("gatehouse.yaml", edge(&folder, &upstream, binds));
        let listen = [(one.to_string(), "one"), (two.to_string(), "two")];
        let listen = listen.each_ref().map(|(address, name)| (address.as_str(), *name));
        let mut process = activated(&listen, &gatehouse_command(), &["run"], &path);
        // The connection that starts it, and waits until it serves.
        assert_eq!(which(one), "second", "{binds:?}");
        assert_eq!(which(two), "first", "{binds:?}");
        assert_eq!(listening(&mut process, "first"), two.to_string());
        assert_eq!(listening(&mut process, "second"), one.to_string());
        assert!(!process.log().contains("no listener is bound"), "{}", process.log());
        // A reload finds them again.
        let mut reload = gatehouse_command();
        reload.arg("reload").arg("-c").arg(&path);
        let output = run_to_end(&mut reload, "");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!((which(one), which(two)), ("second".to_owned(), "first".to_owned()));
        assert_eq!(process.stop().code(), Some(0));
    }
}

#[test]
fn a_socket_that_nobody_serves_is_named() {
    let (folder, upstream) = (Folder::new(), Upstream::start());
    let [one, two, three] = [loopback(), loopback(), loopback()];
    let binds = ["{fd_name: one}", &format!("{{address: \"{three}\"}}")];
    let path = folder.write("gatehouse.yaml", edge(&folder, &upstream, binds));
    let listen = [(one.to_string(), "one"), (two.to_string(), "two")];
    let listen = listen.each_ref().map(|(address, name)| (address.as_str(), *name));
    let mut process = activated(&listen, &gatehouse_command(), &["run"], &path);
    assert_eq!(which(one), "first");
    process.wait_for("that nobody serves it", |line| {
        (line.contains("no listener is bound to inherited socket `two`") && line.contains(&two.to_string()))
            .then_some(())
    });
    assert_eq!(process.stop().code(), Some(0));
}

#[test]
fn names_that_do_not_fit_are_explained() {
    let (folder, upstream) = (Folder::new(), Upstream::start());
    let cases = [
        ("{fd_name: https}", "one", "two", "there is none of this name, only `one`, `two`"),
        ("{fd_name: one}", "one", "one", "several have this name"),
        ("{fd_name: one, kind: unix}", "one", "two", "is not a Unix stream socket"),
        ("{fd: 2}", "one", "two", "only 2 handed over"),
    ];
    for (bind, first, second, says) in cases {
        let path = folder.write("gatehouse.yaml", edge(&folder, &upstream, [bind, "{port: 0}"]));
        let addresses = [loopback(), loopback()];
        let listen = addresses.map(|address| address.to_string());
        let listen = [(listen[0].as_str(), first), (listen[1].as_str(), second)];
        let mut process = activated(&listen, &gatehouse_command(), &["run"], &path);
        let mut client = Client::tcp(addresses[0]);
        assert_eq!(process.wait().code(), Some(1));
        assert!(process.log().contains(says), "{bind}: {}", process.log());
        assert!(client.is_closed());
    }
}

#[test]
fn the_auth_service_takes_tcp_and_unix_sockets() {
    let folder = Folder::new();
    let synapse = FakeSynapse::start();
    let (tcp, unix) = (loopback(), folder.join("auth.sock"));
    for binds in [
        "[{fd_name: unix, kind: unix}, {fd_name: tcp}]".to_owned(),
        format!("[{{socket: {unix:?}}}, {{address: \"{tcp}\"}}]"),
    ] {
        let yaml = auth_yaml(folder.path(), &synapse.url());
        let yaml = format!(
            "{yaml}http: {{listeners: [{{name: web, resources: [{{name: health}}], binds: {binds}}}]}}\n"
        );
        let path = folder.write("auth.yaml", yaml);
        let (address, file) = (tcp.to_string(), unix.display().to_string());
        let listen = [(address.as_str(), "tcp"), (file.as_str(), "unix")];
        let mut process = activated(&listen, &auth_command(), &[], &path);
        let mut curl = Command::new(program("curl"));
        let output =
            run_to_end(curl.args(["-sS", "--fail", "http://x/health", "--unix-socket"]).arg(&unix), "");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Client::tcp(tcp).get("x", "/health").expect(200);
        assert_eq!(process.stop().code(), Some(0));
        assert!(unix.exists(), "whoever made the socket removes it");
    }
}

#[test]
fn a_restart_refuses_no_connection() {
    let (folder, upstream) = (Folder::new(), Upstream::start());
    let path = folder.write("gatehouse.yaml", edge(&folder, &upstream, ["{fd_name: one}", "{fd_name: two}"]));
    let mut command = Command::new("python3");
    command.arg("-c").arg(SERVICE_MANAGER).arg("one:two").arg(gatehouse_command().get_program());
    command.arg("run").arg("-c").arg(&path);
    let mut manager = Process::start("service manager", &mut command);
    let started = |manager: &mut Process, count: usize| {
        manager.wait_for(&format!("start {count}"), |line| {
            line.starts_with(&format!("started {count} ")).then_some(())
        });
    };
    let addresses: Vec<SocketAddr> = manager.wait_for("where it listens", |line| {
        let addresses = line.strip_prefix("bound ")?;
        Some(addresses.split(' ').map(|address| address.parse().unwrap()).collect())
    });
    started(&mut manager, 1);
    let (stop, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        // A connection for each request: accepted by the system whether or not anybody runs, and answered by whoever does next.
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    Client::tcp(addresses[0]).get("x", "/which").expect(200);
                    Client::tcp(addresses[0]).get("x", "/upstream").expect(200);
                    Client::tcp(addresses[1]).get("x", "/which").expect(200);
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let wait_for_more = || {
            let before = answers.load(Ordering::Relaxed);
            while answers.load(Ordering::Relaxed) < before + 10 {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        };
        for count in 2..7 {
            wait_for_more();
            manager.signal(Signal::USR1);
            started(&mut manager, count);
        }
        wait_for_more();
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(manager.stop().code(), Some(0));
    let ends = manager.log().lines().filter(|line| *line == "ended 0").count();
    assert_eq!(ends, 6, "{}", manager.log());
}

/// Binds a socket for each name, starts the program with them, once more whenever SIGUSR1 comes, after the one before has ended. Ends
/// as the last one does.
const SERVICE_MANAGER: &str = "
import os, signal, socket, sys
names, program = sys.argv[1], sys.argv[2:]
sockets = [socket.create_server(('127.0.0.1', 0), backlog=512) for _ in names.split(':')]
print('bound', *['%s:%d' % one.getsockname() for one in sockets], flush=True)
signals = {signal.SIGUSR1, signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
count, last = 0, None
while last != signal.SIGTERM:
    count += 1
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        for number, one in enumerate(sockets):
            os.dup2(one.fileno(), 100 + number)
        for number in range(len(sockets)):
            os.dup2(100 + number, 3 + number)
        os.closerange(3 + len(sockets), 200)
        for name in ('GATEHOUSE_CONFIG', 'GATEHOUSE_LOG', 'GATEHOUSE_TAKE_OVER', 'NOTIFY_SOCKET'):
            os.environ.pop(name, None)
        os.environ.update(LISTEN_FDS=str(len(sockets)), LISTEN_FDNAMES=names, LISTEN_PID=str(os.getpid()))
        os.execv(program[0], program)
    print('started', count, child, flush=True)
    last = signal.sigwait(signals)
    os.kill(child, signal.SIGTERM)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print('ended', code, flush=True)
sys.exit(code)
";
