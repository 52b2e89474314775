//! The files in `conf/systemd`: systemd's own judgement, and the program installed by the commands of their README and run as confined as
//! they say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;
use serde_json::{Value, json};

use super::harness::{
    Certificates, FakeSynapse, Folder, SHARED_SECRET, auth_command, gatehouse_command, program, run_to_end,
};

/// What `systemd-analyze security` finds of each service, in tenths: without a drop-in, and with that for sockets. The README says it too.
const EXPOSURE: [(&str, Option<&str>, u32); 3] = [
    ("gatehouse.service", None, 14),
    ("gatehouse.service", Some("gatehouse.service.d/socket.conf"), 12),
    ("gatehouse-auth.service", None, 12),
];

const SERVICES: [&str; 2] = ["gatehouse.service", "gatehouse-auth.service"];

/// Lines of which `systemd-analyze security` does not know, or knows only together with others.
const UNJUDGED: [&str; 3] = ["PrivateIPC=yes", "KeyringMode=private", "SystemCallErrorNumber=EPERM"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/systemd")
}

fn unit(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap()
}

/// The lines from the one that limits capabilities on: what confines the service.
fn confinement(unit: &str) -> Vec<&str> {
    let (_, rest) = unit.split_once("\nCapabilityBoundingSet=").expect("a unit limits capabilities");
    let (rest, _) = rest.split_once("\n\n").expect("and goes on");
    let lines = rest.lines().skip(1).filter(|line| !line.starts_with('#'));
    lines.filter(|line| !line.starts_with("AmbientCapabilities=")).collect()
}

/// `systemd-analyze security` of a unit with this text: whether it is below the bound, and its number in tenths.
fn exposure(name: &str, text: &str, drop_in: Option<&str>, most: u32) -> (bool, u32) {
    let folder = Folder::new();
    let path = folder.write(name, text);
    if let Some(drop_in) = drop_in {
        folder.write(drop_in, unit(drop_in));
    }
    let mut command = Command::new(program("systemd-analyze"));
    command.args(["security", "--offline=true", &format!("--threshold={most}"), "--no-pager"]).arg(path);
    let output = run_to_end(&mut command, "");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = Regex::new(r"Overall exposure level for \S+ (\d+)\.(\d)").unwrap().captures(&said);
    let found = found.unwrap_or_else(|| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.success(), found[1].parse::<u32>().unwrap() * 10 + found[2].parse::<u32>().unwrap())
}

#[test]
fn the_services_are_as_confined_as_the_readme_says() {
    for (name, drop_in, tenths) in EXPOSURE {
        assert_eq!(exposure(name, &unit(name), drop_in, tenths), (true, tenths), "{name} {drop_in:?}");
    }
    let [alone, sockets, auth] = EXPOSURE.map(|(_, _, tenths)| format!("{}.{}", tenths / 10, tenths % 10));
    let said = format!(
        "gives `gatehouse.service` {alone} of 10, with `gatehouse.socket` {sockets}, and `gatehouse-auth.service` {auth} "
    );
    assert!(unit("README.md").replace('\n', " ").contains(&said), "{said}");
}

#[test]
fn the_two_services_are_confined_alike() {
    let [whole, auth] = SERVICES.map(unit);
    assert_eq!(confinement(&whole), confinement(&auth));
    assert!(confinement(&whole).len() > 20);
}

/// What systemd still finds, by name.
fn findings(text: &str) -> Vec<String> {
    let folder = Folder::new();
    let path = folder.write("gatehouse.service", text);
    let mut command = Command::new(program("systemd-analyze"));
    command.args(["security", "--offline=true", "--json=short", "--no-pager"]).arg(path);
    let output = run_to_end(&mut command, "");
    let all: Vec<Value> = serde_json::from_slice(&output.stdout).expect("a list");
    let open = all.iter().filter(|entry| entry["exposure"].is_string());
    open.map(|entry| entry["json_field"].as_str().unwrap().to_owned()).collect()
}

/// So a line that is taken out does not go unnoticed: systemd finds something more, or it stands in the list of those that it does not judge.
#[test]
fn every_line_that_confines_counts() {
    let text = unit("gatehouse.service");
    let before = findings(&text);
    let (mut idle, mut judged) = (Vec::new(), 0);
    for line in confinement(&text) {
        let weaker = text.replace(&format!("\n{line}\n"), "\n");
        assert_ne!(weaker, text);
        if findings(&weaker) == before {
            idle.push(line);
        } else {
            judged += 1;
        }
    }
    assert_eq!(idle, UNJUDGED);
    assert!(judged > 15, "{judged}");
}

/// The commands of a README, by their names.
fn commands(readme: &str, name: &str) -> String {
    let readme = fs::read_to_string(folder().join(readme)).unwrap();
    let (_, rest) = readme.split_once(&format!("<!-- command: {name} -->\n```sh\n")).expect(name);
    rest.split_once("```").expect("the block ends").0.to_owned()
}

#[test]
fn installed_as_the_readme_says_it_serves_confined() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test makes a file system of its own, which takes root: run it with sudo, or leave it out with `--skip serves_confined`"
    );
    let folder = Folder::new();
    let certificates = Certificates::new(&folder, &["matrix.example.com", "auth.example.com"]);
    let synapse = FakeSynapse::start();
    let port = synapse.upstream.address.to_string();
    let job = json!({
        "repository": env!("CARGO_MANIFEST_DIR"),
        "gatehouse": gatehouse_command().get_program().to_str(),
        "gatehouse-auth": auth_command().get_program().to_str(),
        "folder": folder.path(),
        "install": commands("../../README.md", "install"),
        "start": commands("../../README.md", "start"),
        "certbot": commands("README.md", "certbot"),
        "socket": commands("README.md", "socket"),
        "auth": commands("README.md", "auth"),
        "certificate": certificates.certificate,
        "key": certificates.key,
        "ca": certificates.ca,
        "secret": SHARED_SECRET,
        "synapse": port.rsplit(':').next().unwrap().parse::<u16>().unwrap(),
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/clients/confined.py");
    // As the init of a process namespace: whatever it starts ends with it.
    let mut command = Command::new(program("unshare"));
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child", "/usr/bin/python3", "-B"]);
    let output = run_to_end(command.arg(script).arg(job.to_string()), "");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success() && said.lines().any(|line| line == "done"), "{said}");
}
