//! Exit codes, which unit files and scripts rely on: 0 when all is well, also for a process that was asked to stop; 78 when the
//! configuration is at fault and starting again is of no use; 1 for everything else.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use super::harness::{
    FakeSynapse, Folder, Gatehouse, Process, auth_command, auth_yaml, gatehouse_command, run_to_end,
};

const GOOD: i32 = 0;
const FAULT: i32 = 1;
const CONFIGURATION: i32 = 78;

/// An edge and nothing else; `DATA` and `BIND` stand for the folder and for an address.
const EDGE: &str = r#"
data_dir: DATA
edge:
  listeners: [{name: http, binds: [BIND]}]
  upstreams: {api: {servers: ["localhost:8080"]}}
  sites: [{hosts: ["_"], routes: [{prefix: /, upstream: api}]}]
"#;

fn edge(folder: &Folder, bind: &str) -> String {
    EDGE.replace("DATA", &folder.path().display().to_string()).replace("BIND", bind)
}

/// An auth service and nothing else.
fn auth(folder: &Folder, database: &str) -> String {
    let database_before = format!("\"sqlite://{}/auth.db\"", folder.path().display());
    let yaml = auth_yaml(folder.path(), "http://127.0.0.1:1");
    assert!(yaml.contains(&database_before));
    format!(
        "{}http:\n  listeners: [{{name: web, resources: [{{name: health}}], binds: [{{host: 127.0.0.1, port: 0}}]}}]\n",
        yaml.replace(&database_before, &format!("{database:?}, connect_timeout: 2"))
    )
}

#[track_caller]
fn check(command: &mut Command, code: i32, says: &str) {
    let output = run_to_end(command, "");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(code), "{command:?}:\n{said}");
    assert!(said.contains(says), "{command:?} does not say {says:?}:\n{said}");
}

fn gatehouse(arguments: &[&str], configuration: &Path) -> Command {
    let mut command = gatehouse_command();
    command.args(arguments).arg("-c").arg(configuration);
    command
}

fn auth_alone(arguments: &[&str], configuration: &Path) -> Command {
    let mut command = auth_command();
    command.args(arguments).arg("-c").arg(configuration);
    command
}

/// Both programs as they serve, with a configuration.
fn servers(configuration: &Path) -> [Command; 2] {
    [gatehouse(&["run"], configuration), auth_alone(&[], configuration)]
}

#[test]
fn a_configuration_at_fault_is_78_whoever_reads_it() {
    let folder = Folder::new();
    let faults = [
        ("unknown.yaml", edge(&folder, "{adress: \"127.0.0.1:0\"}"), "did you mean \"address\"?"),
        ("syntax.yaml", "edge: [".to_owned(), "is not valid YAML"),
        ("empty.yaml", String::new(), "empty.yaml"),
        ("nothing.yaml", "data_dir: /tmp\n".to_owned(), "nothing.yaml"),
    ];
    for (name, yaml, says) in faults {
        let path = folder.write(name, yaml);
        for arguments in [&["run"][..], &["check"], &["config", "show"], &["reload"], &["upgrade"]] {
            check(&mut gatehouse(arguments, &path), CONFIGURATION, says);
        }
        for arguments in [&[][..], &["reload"], &["upgrade"]] {
            check(&mut auth_alone(arguments, &path), CONFIGURATION, says);
        }
    }
    let missing = folder.join("missing.yaml");
    for mut command in servers(&missing) {
        check(&mut command, CONFIGURATION, "missing.yaml");
    }
    // An edge is nothing that the auth service alone could serve.
    let path = folder.write("edge.yaml", edge(&folder, "{address: \"127.0.0.1:0\"}"));
    check(&mut auth_alone(&[], &path), CONFIGURATION, "has no auth service");
}

#[test]
fn what_is_well_is_0() {
    let folder = Folder::new();
    let path = folder.write("good.yaml", edge(&folder, "{address: \"127.0.0.1:0\"}"));
    check(&mut gatehouse(&["check"], &path), GOOD, "ok: edge");
    check(&mut gatehouse(&["config", "show"], &path), GOOD, "listeners:");
    let mut running = Gatehouse::run(path.clone());
    running.tcp("http");
    check(&mut gatehouse(&["reload"], &path), GOOD, "reloaded");
    assert_eq!(running.process.stop().code(), Some(GOOD));
}

#[test]
fn what_the_configuration_is_not_at_fault_for_is_1() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let file = folder.write("a-file", "");
    let no_folder = format!("{{socket: {:?}}}", folder.join("nowhere/http.sock"));
    let binds = [
        (format!("{{address: \"{taken}\"}}"), "in use"),
        (format!("{{socket: {file:?}}}"), "is not a socket"),
        (no_folder, "nowhere/http.sock"),
        ("{fd: 0}".to_owned(), "LISTEN_FDS"),
        ("{fd_name: https}".to_owned(), "LISTEN_FDNAMES"),
        // From a network that is for documentation (RFC 5737), and no machine's.
        ("{address: \"192.0.2.1:0\"}".to_owned(), "192.0.2.1"),
    ];
    for (bind, says) in binds {
        let path = folder.write("fault.yaml", edge(&folder, &bind));
        check(&mut gatehouse(&["run"], &path), FAULT, says);
    }
    let log = edge(&folder, "{address: \"127.0.0.1:0\"}")
        + &format!("  access_log: {{path: {:?}}}\n", file.join("access.log"));
    let path = folder.write("fault.yaml", log);
    check(&mut gatehouse(&["run"], &path), FAULT, "access log");

    let databases = [
        // No folder can be made of a file.
        (format!("sqlite://{}/auth.db", file.display()), "a-file"),
        // Nothing listens there.
        ("postgresql://gatehouse@127.0.0.1:1/gatehouse".to_owned(), "database"),
    ];
    for (database, says) in databases {
        let path = folder.write("fault.yaml", auth(&folder, &database));
        for mut command in servers(&path) {
            check(&mut command, FAULT, says);
        }
    }
    // Nobody is there to be asked.
    for errand in ["reload", "upgrade"] {
        let path = path_of_good_auth(&folder);
        for mut command in [gatehouse(&[errand], &path), auth_alone(&[errand], &path)] {
            check(&mut command, FAULT, "nothing runs with this data_dir");
        }
    }
    check(
        gatehouse_command().arg("user").arg("-c").arg(path_of_good_auth(&folder)).args(["lock", "nobody"]),
        FAULT,
        "nobody",
    );
    check(
        gatehouse_command()
            .arg("init")
            .arg("--server-name")
            .arg("example.com")
            .arg("--dir")
            .arg(folder.path()),
        FAULT,
        "never overwrites",
    );
}

fn path_of_good_auth(folder: &Folder) -> std::path::PathBuf {
    folder.write("auth.yaml", auth(folder, &format!("sqlite://{}/auth.db", folder.path().display())))
}

/// As most programs: what is no command at all is told by a code of its own.
#[test]
fn a_command_line_that_makes_no_sense_is_2() {
    check(gatehouse_command().arg("walk"), 2, "walk");
    check(auth_command().arg("--walk"), 2, "--walk");
}

#[test]
fn a_reload_that_comes_to_nothing_is_1_and_the_process_goes_on() {
    let folder = Folder::new();
    let path = folder.write("gatehouse.yaml", edge(&folder, "{address: \"127.0.0.1:0\"}"));
    let mut running = Gatehouse::run(path.clone());
    running.tcp("http");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    folder
        .write("gatehouse.yaml", edge(&folder, &format!("{{address: \"{}\"}}", taken.local_addr().unwrap())));
    check(&mut gatehouse(&["reload"], &path), FAULT, "in use");
    assert_eq!(running.process.stop().code(), Some(GOOD));
}

#[test]
fn a_process_that_is_stopped_before_it_is_ready_is_0() {
    let folder = Folder::new();
    // Takes connections and never says a word, as a database behind a firewall.
    let database = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("postgresql://gatehouse@{}/gatehouse", database.local_addr().unwrap());
    let yaml = auth(&folder, &uri).replace("connect_timeout: 2", "connect_timeout: 600");
    let path = folder.write("auth.yaml", yaml);
    for mut command in servers(&path) {
        let mut process = Process::start("gatehouse", &mut command);
        let _connected = database.accept().unwrap();
        assert_eq!(process.stop().code(), Some(GOOD), "{}", process.log());
        assert!(process.log().contains("stopped before it was ready"), "{}", process.log());
    }
}

#[test]
fn a_process_that_is_killed_is_nothing_of_these() {
    let folder = Folder::new();
    let synapse = FakeSynapse::start();
    let yaml = auth_yaml(folder.path(), &synapse.url());
    let yaml = format!(
        "{yaml}http: {{listeners: [{{name: web, resources: [{{name: health}}], binds: [{{host: 127.0.0.1, port: 0}}]}}]}}\n"
    );
    let mut auth = Gatehouse::start_auth(&folder, &yaml);
    auth.tcp("web");
    auth.process.signal(Signal::INT);
    assert_eq!(auth.process.wait().code(), Some(GOOD), "SIGINT is as good as SIGTERM");
    let mut auth = Gatehouse::start_auth(&folder, &yaml);
    auth.tcp("web");
    auth.process.signal(Signal::KILL);
    assert_eq!(auth.process.wait().code(), None);
}
