//! The executable `gatehouse-auth`: exit codes, the lines that scripts rely on, what it makes at its first start.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

fn start(folder: &Path, configuration: &str) -> Child {
    let file = folder.join("gatehouse.yaml");
    std::fs::write(&file, configuration).expect("a file");
    Command::new(env!("CARGO_BIN_EXE_gatehouse-auth"))
        .arg("-c")
        .arg(file)
        .env_remove("GATEHOUSE_LOG")
        .stderr(Stdio::piped())
        .spawn()
        .expect("a process")
}

fn configuration(folder: &Path) -> String {
    format!(
        r#"
data_dir: {folder}/data
http:
  public_base: https://auth.example.com/
  listeners:
    - resources: [{{name: health}}]
      binds: [{{address: "127.0.0.1:0"}}]
matrix: {{homeserver: example.com, endpoint: "http://127.0.0.1:1/"}}
"#,
        folder = folder.display()
    )
}

#[test]
fn it_says_where_it_listens_and_ends_well_when_asked_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut process = start(folder.path(), &configuration(folder.path()));
    let mut lines = BufReader::new(process.stderr.take().expect("stderr")).lines();
    let address = loop {
        let line = lines.next().expect("a line `listening`").expect("text");
        let Ok(line) = serde_json::from_str::<serde_json::Value>(&line) else { continue };
        if line["message"] == "listening" {
            break line["address"].as_str().expect("an address").to_owned();
        }
    };
    let mut stream = TcpStream::connect(&address).expect("a connection");
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{answer}");

    for name in ["matrix-secret", "encryption-secret", "auth.db"] {
        let mode = std::fs::metadata(folder.path().join("data").join(name)).expect(name).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }

    let asked = Command::new("kill").arg("-TERM").arg(process.id().to_string()).status().expect("kill");
    assert!(asked.success());
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert_eq!(process.wait().expect("an end").code(), Some(0), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("stopped")), "{rest:?}");
}

#[test]
fn a_bad_configuration_is_78_and_a_fault_is_1() {
    let folder = tempfile::tempdir().expect("a folder");
    let bad = start(folder.path(), "http: {listenrs: []}\n").wait_with_output().expect("an end");
    assert_eq!(bad.status.code(), Some(78));
    let told = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert!(told.contains("listenrs"), "{told}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let configuration = configuration(folder.path()).replace("127.0.0.1:0", &address);
    let fault = start(folder.path(), &configuration).wait_with_output().expect("an end");
    let told = String::from_utf8_lossy(&fault.stderr).into_owned();
    assert_eq!(fault.status.code(), Some(1), "{told}");
    assert!(told.contains("in use"), "{told}");
}
