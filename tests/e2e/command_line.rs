//! The commands that do not serve: check, config show, init, user.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::harness::{FakeSynapse, Folder, auth_yaml, gatehouse_command, run_to_end};

fn run(arguments: &[&str], input: &str) -> Output {
    run_to_end(gatehouse_command().args(arguments), input)
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

const EDGE: &str = r#"
edge:
  listeners: [{name: http, binds: [{address: "127.0.0.1:0"}]}]
  upstreams: {api: {servers: ["localhost:8080"]}}
  sites: [{hosts: ["_"], routes: [{prefix: /, upstream: api}]}]
"#;

#[test]
fn check_says_in_one_line_what_a_good_configuration_is() {
    let folder = Folder::new();
    let path = folder.write("good.yaml", EDGE);
    let output = run(&["check", "-c", text(&path)], "");
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(out(&output), "ok: edge with 1 listener, 1 site, 1 upstream; 0 warnings\n");
}

#[test]
fn check_and_run_report_every_fault_with_its_place_and_exit_78() {
    let folder = Folder::new();
    let path = folder.write(
        "bad.yaml",
        EDGE.replace("upstream: api", "upstrem: api").replace("hosts: [\"_\"]", "hosts: []"),
    );
    for command in ["check", "run"] {
        let output = run(&[command, "-c", text(&path)], "");
        assert_eq!(output.status.code(), Some(78), "{command}: {}", err(&output));
        let said = err(&output);
        assert!(said.contains("bad.yaml:5:"), "{said}");
        assert!(
            said.contains("edge.sites[0].routes[0].upstrem") && said.contains("did you mean \"upstream\"?"),
            "{said}"
        );
        assert!(said.contains("edge.sites[0].hosts"), "all faults at once: {said}");
    }
    let output = run(&["check", "-c", text(&folder.join("absent.yaml"))], "");
    assert_eq!(output.status.code(), Some(78), "{}", err(&output));
    assert!(err(&output).contains("absent.yaml"), "{}", err(&output));
}

#[test]
fn config_show_expands_the_preset_and_hides_secrets() {
    let folder = Folder::new();
    let made = run(&["init", "--server-name", "example.com", "--dir", text(folder.path())], "");
    assert_eq!(made.status.code(), Some(0), "{}", err(&made));
    let secret = std::fs::read_to_string(folder.join("matrix-secret")).unwrap();
    let yaml = format!(
        "edge: {{matrix: {{server_name: example.com, synapse: \"http://localhost:8008\", auth: bundled, federation_port: false}}, \
         listeners: [{{name: http, binds: [{{address: \"127.0.0.1:0\"}}]}}]}}\n\
         data_dir: {:?}\nmatrix: {{secret: {secret:?}}}\n",
        folder.path()
    );
    let path = folder.write("shown.yaml", yaml);
    let output = run(&["config", "show", "-c", text(&path)], "");
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let shown = out(&output);
    assert!(shown.contains("<redacted>") && !shown.contains(secret.trim()), "{shown}");
    for expanded in ["matrix.example.com", "auth.example.com", "login|logout|refresh", "auth.sock"] {
        assert!(shown.contains(expanded), "{expanded} is missing in {shown}");
    }
    let parsed: serde_yaml::Value = serde_yaml::from_str(&shown).expect("what is shown is YAML");
    assert!(parsed.is_mapping());
}

#[test]
fn init_writes_a_configuration_that_is_valid_but_for_the_certificate_and_never_overwrites() {
    let folder = Folder::new();
    let target = folder.join("new");
    let output = run(&["init", "--server-name", "example.com", "--dir", text(&target)], "");
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).contains("matrix_authentication_service:"), "{}", out(&output));
    for name in ["gatehouse.yaml", "matrix-secret", "encryption-secret"] {
        let mode = std::fs::metadata(target.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name} is open to others: {mode:o}");
    }
    let before = std::fs::read(target.join("gatehouse.yaml")).unwrap();

    let again = run(&["init", "--server-name", "other.example", "--dir", text(&target)], "");
    assert_eq!(again.status.code(), Some(1));
    assert!(err(&again).contains("never overwrites"), "{}", err(&again));
    assert_eq!(std::fs::read(target.join("gatehouse.yaml")).unwrap(), before);

    let checked = run(&["check", "-c", text(&target.join("gatehouse.yaml"))], "");
    let faults: Vec<String> =
        err(&checked).lines().filter(|line| line.contains("gatehouse.yaml:")).map(str::to_owned).collect();
    assert!(
        faults.iter().all(|line| line.contains("certificate") || line.contains("key_file")),
        "{}",
        err(&checked)
    );
}

/// A configuration with accounts, whose homeserver answers.
fn accounts(folder: &Folder, synapse: &FakeSynapse) -> String {
    let yaml = format!(
        "{}http: {{public_base: \"https://auth.example.com/\", listeners: [{{name: web, resources: [{{name: compat}}], \
         binds: [{{address: \"127.0.0.1:0\"}}]}}]}}\n",
        auth_yaml(folder.path(), &synapse.url())
    );
    text(&folder.write("accounts.yaml", yaml)).to_owned()
}

#[test]
fn user_add_makes_up_a_password_and_prints_it_once() {
    let (folder, synapse) = (Folder::new(), FakeSynapse::start());
    let configuration = accounts(&folder, &synapse);
    let output = run(&["user", "-c", &configuration, "add", "alice"], "");
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let said = out(&output);
    assert!(said.contains("@alice:localhost"), "{said}");
    let password =
        said.lines().find_map(|line| line.strip_prefix("password: ")).expect("the password is printed");
    assert!(password.len() >= 16, "{password}");
}

#[test]
fn user_commands_change_what_user_list_shows() {
    let (folder, synapse) = (Folder::new(), FakeSynapse::start());
    let configuration = accounts(&folder, &synapse);
    let user = |arguments: &[&str], input: &str| {
        let output = run(&[&["user", "-c", &configuration], arguments].concat(), input);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", err(&output));
        out(&output)
    };
    user(
        &["add", "alice", "--password-stdin", "--email", "alice@example.org", "--admin"],
        "correct horse battery\n",
    );
    user(&["add", "bob", "--password-stdin"], "correct horse battery\n");
    user(&["set-password", "bob", "--password-stdin"], "another horse battery\n");
    let list = || -> Value { serde_json::from_str(&user(&["list", "--json"], "")).unwrap() };
    assert_eq!(list().as_array().unwrap().len(), 2, "{}", list());
    let before = list();
    user(&["lock", "alice"], "");
    assert_ne!(list(), before, "a lock shows");
    user(&["unlock", "alice"], "");
    assert_eq!(list(), before);
    user(&["deactivate", "bob"], "");
    assert_ne!(list(), before, "a deactivation shows");
    assert_eq!(user(&["sessions", "alice", "--json"], "").trim(), "[]");
    let table = user(&["list"], "");
    assert!(table.contains("alice") && table.contains("alice@example.org"), "{table}");
}

#[test]
fn user_commands_refuse_what_cannot_be() {
    let (folder, synapse) = (Folder::new(), FakeSynapse::start());
    let configuration = accounts(&folder, &synapse);
    let user =
        |arguments: &[&str], input: &str| run(&[&["user", "-c", &configuration], arguments].concat(), input);
    assert_eq!(user(&["add", "alice", "--password-stdin"], "correct horse battery\n").status.code(), Some(0));
    for (arguments, input) in [
        (&["add", "alice", "--password-stdin"][..], "correct horse battery\n"),
        (&["add", "Not A Localpart", "--password-stdin"], "correct horse battery\n"),
        (&["add", "weak", "--password-stdin"], "password\n"),
        (&["add", "empty", "--password-stdin"], ""),
        (&["lock", "nobody"], ""),
        (&["sessions", "nobody"], ""),
    ] {
        let output = user(arguments, input);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", out(&output));
        assert!(!err(&output).is_empty(), "{arguments:?} says nothing");
    }
    let other = folder.write("edge.yaml", EDGE);
    let output = run(&["user", "-c", text(&other), "list"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("no auth service"), "{}", err(&output));
}
