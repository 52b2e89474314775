//! `gatehouse reload` and SIGHUP as whoever asks for them sees it: what is printed, what is logged, and when nothing happens. That a reload
//! drops nothing is tested elsewhere.

use std::net::TcpListener;

use rustix::process::{Signal, kill_process};
use serde_json::Value;

use super::harness::{
    ANY_PORT, Client, FakeSynapse, Folder, Gatehouse, Upgradable, auth_listener_yaml, pid, run_to_end,
};

fn yaml(folder: &Folder) -> String {
    format!(
        r#"
data_dir: {}
edge:
  threads: 1
  listeners: [{{name: http, binds: [{{address: "127.0.0.1:0"}}]}}]
  sites: [{{hosts: ["_"], routes: [{{prefix: /, respond: {{status: 200, body: first}}}}]}}]
"#,
        folder.path().display()
    )
}

/// The messages of the log, and the faults that are told with them.
fn messages(running: &Upgradable) -> Vec<String> {
    let log = running.gatehouse.process.log();
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        let message = line["message"].as_str()?.to_owned();
        Some(line["fault"].as_str().map_or(message.clone(), |fault| format!("{message}: {fault}")))
    };
    log.lines().filter_map(line).collect()
}

#[test]
fn a_reload_says_what_it_changed() {
    let folder = Folder::new();
    let first = yaml(&folder);
    let mut running = Upgradable::start(&folder, &first);
    let address = running.gatehouse.tcp("http");
    let asked = running.ask("reload");
    assert_eq!(asked.code, Some(0), "{}", asked.text);
    assert!(asked.text.starts_with("configuration reloaded: generation 2, "), "{}", asked.text);
    assert!(asked.text.contains("no setting has changed"), "{}", asked.text);

    let second = first
        .replace("threads: 1", "threads: 2\n  timeouts: {idle: 20s}")
        .replace("body: first", "body: second")
        .replace("sites: [", "sites: [{hosts: [a.example], routes: [{prefix: /, deny: 403}]}, ")
        .replace("name: http, binds: [", "name: http, binds: [{socket: SOCKET}, ")
        .replace("SOCKET", &folder.join("edge.sock").display().to_string());
    folder.write("gatehouse.yaml", &second);
    let asked = running.ask("reload");
    assert_eq!(asked.code, Some(0), "{}", asked.text);
    let lines: Vec<&str> = asked.text.lines().collect();
    assert!(lines[0].starts_with("configuration reloaded: generation 3, "), "{}", asked.text);
    for expected in [
        &format!("edge http listens on unix:{}", folder.join("edge.sock").display()),
        "edge.listeners[http]: changed",
        "edge.timeouts.idle: 75s → 20s",
        "edge.sites[_]: changed",
        "edge.sites[a.example]: added",
        "warning: edge.threads: 1 → 2: takes effect with `gatehouse upgrade` or a restart",
    ] {
        assert!(lines.contains(&expected), "{expected:?} is missing in {}", asked.text);
    }
    assert_eq!(Client::tcp(address).get("x", "/").expect(200).text(), "second");
    folder.write("gatehouse.yaml", &first);
    let asked = running.ask("reload");
    let gone = format!("edge http does not listen on unix:{} any more", folder.join("edge.sock").display());
    assert!(asked.text.lines().any(|line| line == gone), "{}", asked.text);
    assert_eq!(Client::tcp(address).get("x", "/").expect(200).text(), "first");
    running.stop();
}

#[test]
fn a_listener_moves_from_all_addresses_to_one_and_back() {
    let folder = Folder::new();
    let first = yaml(&folder).replace("127.0.0.1:0", "[::]:0");
    let mut running = Upgradable::start(&folder, &first);
    let address = running.gatehouse.tcp("http");
    let mut open = Client::tcp(address);
    open.get("x", "/").expect(200);
    let port = address.port();
    for (bind, body) in [(format!("127.0.0.1:{port}"), "second"), (format!("[::]:{port}"), "third")] {
        folder.write("gatehouse.yaml", first.replace("[::]:0", &bind).replace("first", body));
        let asked = running.ask("reload");
        assert_eq!(asked.code, Some(0), "{}", asked.text);
        assert!(asked.text.contains(&format!("edge http listens on {bind}")), "{}", asked.text);
        assert_eq!(Client::tcp(address).get("x", "/").expect(200).text(), body);
    }
    running.stop();
}

#[test]
fn a_faulty_file_is_reported_and_nothing_is_asked() {
    let folder = Folder::new();
    let first = yaml(&folder);
    let mut running = Upgradable::start(&folder, &first);
    let address = running.gatehouse.tcp("http");
    folder.write(
        "gatehouse.yaml",
        first.replace("deny", "dny").replace("respond:", "respnd:").replace("threads", "thread"),
    );
    let asked = running.ask("reload");
    assert_eq!(asked.code, Some(78), "{}", asked.text);
    assert!(
        asked.text.contains("did you mean \"respond\"") && asked.text.contains("did you mean \"threads\""),
        "{}",
        asked.text
    );
    assert!(messages(&running).iter().all(|message| !message.contains("reload")));

    // The signal has no other way than the log: one line for each fault.
    kill_process(pid(running.serving), Signal::HUP).unwrap();
    let failed = running.gatehouse.process.wait_for("each fault", |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        line["fault"].as_str().filter(|fault| fault.contains("respnd")).map(str::to_owned)
    });
    assert!(failed.contains("gatehouse.yaml:6:"), "{failed}");
    let messages = messages(&running);
    assert!(messages.iter().any(|message| message == "reload failed, the old configuration stays in force"));
    assert!(messages.iter().any(|message| message.contains("edge.thread: unknown key")), "{messages:?}");
    assert_eq!(Client::tcp(address).get("x", "/").expect(200).text(), "first");
    running.stop();
}

#[test]
fn what_only_the_running_process_can_find_changes_nothing_either() {
    let folder = Folder::new();
    let first = yaml(&folder);
    let mut running = Upgradable::start(&folder, &first);
    let address = running.gatehouse.tcp("http");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_address = taken.local_addr().unwrap();
    let other = format!("127.0.0.1:0\"}}, {{address: \"{taken_address}");
    folder.write("gatehouse.yaml", first.replace("127.0.0.1:0", &other).replace("first", "second"));
    let asked = running.ask("reload");
    assert_eq!(asked.code, Some(1), "{}", asked.text);
    let said = format!("{taken_address} is in use by another process");
    assert!(
        asked.text.contains("the old configuration stays in force") && asked.text.contains(&said),
        "{}",
        asked.text
    );
    running.gatehouse.process.wait_for("the fault", |line| {
        (line.contains("\"reload failed\"") && line.contains(&said)).then_some(())
    });
    assert_eq!(Client::tcp(address).get("x", "/").expect(200).text(), "first");
    // It was for that alone.
    drop(taken);
    let asked = running.ask("reload");
    assert_eq!(asked.code, Some(0), "{}", asked.text);
    assert_eq!(Client::tcp(taken_address).get("x", "/").expect(200).text(), "second");

    for (from, to, said) in [
        (
            "data_dir: ",
            "data_dir: /tmp/other",
            "`data_dir` is another: that takes `gatehouse upgrade` or a restart",
        ),
        (
            "edge:",
            "http: {public_base: \"https://a.example/\"}\nmatrix: {homeserver: a.example, secret: x}\nedge:",
            "there was no auth service",
        ),
    ] {
        let control = folder.join("control.sock");
        folder.write("gatehouse.yaml", first.replace(from, to));
        let mut command = super::harness::gatehouse_command();
        command.arg("reload").arg("--control").arg(control).arg("-c").arg(&running.gatehouse.configuration);
        let output = run_to_end(&mut command, "");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(said), "{text}");
    }
    running.stop();
}

#[test]
fn reloads_wait_for_each_other() {
    let folder = Folder::new();
    let mut running = Upgradable::start(&folder, &yaml(&folder));
    running.gatehouse.tcp("http");
    let answers: Vec<_> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..8).map(|_| scope.spawn(|| running.ask("reload"))).collect();
        asking.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    let mut generations: Vec<u32> = answers
        .iter()
        .map(|asked| {
            assert_eq!(asked.code, Some(0), "{}", asked.text);
            let rest = asked.text.strip_prefix("configuration reloaded: generation ").unwrap();
            rest.split(',').next().unwrap().parse().unwrap()
        })
        .collect();
    generations.sort_unstable();
    assert_eq!(generations, (2..10).collect::<Vec<_>>());
    running.stop();
}

#[test]
fn a_process_that_is_not_there_or_has_other_files_is_named() {
    let folder = Folder::new();
    let first = yaml(&folder);
    let path = folder.write("gatehouse.yaml", &first);
    let output = run_to_end(super::harness::gatehouse_command().arg("reload").arg("-c").arg(&path), "");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("nothing runs with this data_dir") && said.contains("control.sock"), "{said}");

    let mut running = Upgradable::start(&folder, &first);
    running.gatehouse.tcp("http");
    let other = folder.write("other.yaml", &first);
    let asked = running.ask_with("reload", &other);
    assert_eq!(asked.code, Some(1), "{}", asked.text);
    let said =
        format!("process {} runs with {}, not with {}", running.serving, path.display(), other.display());
    assert!(asked.text.contains(&said), "{}", asked.text);
    // A second one with the same data_dir has none of its own, and leaves this one's alone.
    let mut second = Gatehouse::run(other);
    second.process.wait_for("that it has none", |line| line.contains("no control socket").then_some(()));
    second.process.wait_for("that it serves", |line| line.contains("\"listening\"").then_some(()));
    assert!(second.stop_cleanly());
    let asked = running.ask("reload");
    assert_eq!(asked.code, Some(0), "{}", asked.text);
    running.stop();
}

#[test]
fn without_a_data_dir_the_signal_still_reloads() {
    let folder = Folder::new();
    let first = yaml(&folder).replace(&folder.path().display().to_string(), "/nonexistent/gatehouse");
    let mut running = Upgradable::start(&folder, &first);
    let address = running.gatehouse.tcp("http");
    running
        .gatehouse
        .process
        .wait_for("that it has none", |line| line.contains("no control socket").then_some(()));
    folder.write("gatehouse.yaml", first.replace("body: first", "body: second"));
    kill_process(pid(running.serving), Signal::HUP).unwrap();
    running.gatehouse.process.wait_for("that it reloaded", |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["message"] == "configuration reloaded" && line["generation"] == 2).then_some(())
    });
    assert_eq!(Client::tcp(address).get("x", "/").expect(200).text(), "second");
    running.stop();
}

#[test]
fn the_auth_service_alone_reloads() {
    let folder = Folder::new();
    let synapse = FakeSynapse::start();
    let first = auth_listener_yaml(folder.path(), &synapse.url(), &["health"], ANY_PORT);
    let mut running = Upgradable::start_auth(&folder, &first);
    let address = running.gatehouse.tcp("web");
    folder.write("auth.yaml", first.replace("{name: health}", "{name: health}, {name: discovery}"));
    let asked = running.ask("reload");
    assert_eq!(asked.code, Some(0), "{}", asked.text);
    assert!(asked.text.lines().any(|line| line == "http.listeners[web]: changed"), "{}", asked.text);
    Client::tcp(address).get("x", "/.well-known/openid-configuration").expect(200);
    folder.write("auth.yaml", first.replace("resources:", "resource:"));
    assert_eq!(running.ask("reload").code, Some(78));
    Client::tcp(address).get("x", "/health").expect(200);
    running.stop();
}
