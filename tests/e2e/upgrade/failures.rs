//! A next process that fails, in every way: the running one goes on, and says why.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use rustix::process::{Signal, kill_process};

use super::super::harness::{Client, Folder, PATIENCE, Upgradable, Upstream, is_alive, pid};
use super::{Door, Load, control, exists, yaml};

#[test]
fn whatever_is_wrong_with_the_next_one_the_running_one_goes_on() {
    let folder = Folder::new();
    let upstream = Upstream::start();
    let first = yaml(&folder, &upstream);
    let mut running = Upgradable::start(&folder, &first);
    let doors = [Door::Tcp(running.gatehouse.tcp("http")), Door::Unix(folder.join("edge.sock"))];
    let load = Load::start(&doors);
    load.wait_for(20);
    let check = |code: i32, said: &str| {
        let asked = running.ask("upgrade");
        assert_eq!(asked.code, Some(code), "{}", asked.text);
        assert!(asked.text.contains(said), "{said:?} is missing in {}", asked.text);
        load.wait_for(10);
    };
    running.replace_by_script("exit 3");
    check(1, "the new process ended before it was ready, exit status: 3");
    running.replace_by_script("exit 78");
    check(78, "the new process refuses its configuration");
    running.replace_by_script("kill -9 $$");
    check(1, "signal: 9 (SIGKILL)");
    std::fs::write(&running.program, "no executable").unwrap();
    check(1, "cannot be started");
    std::fs::remove_file(&running.program).unwrap();
    check(1, "cannot be started");
    running.replace();

    // Good to whoever asks, and bad to the new process: a port that somebody else has.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap();
    let other = format!("127.0.0.1:0\"}}, {{address: \"{taken}");
    folder.write("gatehouse.yaml", first.replace("127.0.0.1:0", &other));
    check(1, &format!("{taken} is in use by another process"));
    assert_eq!(running.lines_with("not replaced, this process goes on"), 6);

    folder.write("gatehouse.yaml", first.replace("upstream: api", "upstrem: api"));
    let asked = running.ask("upgrade");
    assert_eq!(asked.code, Some(78), "{}", asked.text);
    assert!(asked.text.contains("did you mean \"upstream\""), "{}", asked.text);
    assert_eq!(running.lines_with("the next process is started"), 4, "it is not even tried");

    folder.write("gatehouse.yaml", &first);
    let old = running.serving;
    running.upgrade();
    running.wait_until_gone(old);
    load.wait_for(20);
    load.end();
    running.stop();
}

#[test]
fn a_configuration_that_only_the_next_one_refuses_is_reported_with_its_faults() {
    let folder = Folder::new();
    let upstream = Upstream::start();
    let first = yaml(&folder, &upstream);
    let mut running = Upgradable::start(&folder, &first);
    let address = running.gatehouse.tcp("http");
    // It looks at the file once more, after it was found good.
    let configuration = &running.gatehouse.configuration;
    let bad = folder.write("bad.yaml", first.replace("upstream: api", "upstrem: api"));
    running.replace_by_script(&format!(
        "cp {} {}; exec {} \"$@\"",
        bad.display(),
        configuration.display(),
        env!("CARGO_BIN_EXE_gatehouse")
    ));
    let asked = running.ask("upgrade");
    assert_eq!(asked.code, Some(78), "{}", asked.text);
    assert!(asked.text.contains("not upgraded, the running process goes on"), "{}", asked.text);
    assert!(asked.text.contains("upstrem: unknown key, did you mean \"upstream\"?"), "{}", asked.text);
    Client::tcp(address).get("x", "/").expect(200);
    running.stop();
}

#[test]
fn a_next_process_that_is_killed_in_the_middle_is_forgotten() {
    let folder = Folder::new();
    let upstream = Upstream::start();
    let mut running = Upgradable::start(&folder, &yaml(&folder, &upstream));
    let address = running.gatehouse.tcp("http");
    running.replace_by_script("exec sleep 300");
    let asked = std::thread::scope(|scope| {
        let asking = scope.spawn(|| running.ask("upgrade"));
        let deadline = std::time::Instant::now() + PATIENCE;
        let number = loop {
            let log = running.gatehouse.process.log();
            let started = log.lines().find(|line| line.contains("the next process is started"));
            if let Some(line) = started {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                break u32::try_from(line["pid"].as_u64().unwrap()).unwrap();
            }
            assert!(std::time::Instant::now() < deadline, "{log}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        };
        Client::tcp(address).get("x", "/").expect(200);
        kill_process(pid(number), Signal::KILL).unwrap();
        asking.join().unwrap()
    });
    assert_eq!(asked.code, Some(1), "{}", asked.text);
    assert!(asked.text.contains("signal: 9 (SIGKILL)"), "{}", asked.text);
    running.replace();
    running.upgrade();
    Client::tcp(address).get("x", "/").expect(200);
    running.stop();
}

#[test]
fn a_next_process_does_not_outlive_an_upgrade_that_is_broken_off() {
    let folder = Folder::new();
    let upstream = Upstream::start();
    let mut running = Upgradable::start(&folder, &yaml(&folder, &upstream));
    running.gatehouse.tcp("http");
    running.replace_by_script("exec sleep 300");
    let asked = std::thread::scope(|scope| {
        let asking = scope.spawn(|| running.ask("upgrade"));
        super::until("it is started", || running.lines_with("the next process is started") == 1);
        kill_process(pid(running.serving), Signal::TERM).unwrap();
        asking.join().unwrap()
    });
    assert_eq!(asked.code, Some(1), "{}", asked.text);
    assert!(asked.text.contains("the process is about to end"), "{}", asked.text);
    let log = running.gatehouse.process.log();
    let line = log.lines().find(|line| line.contains("the next process is started")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let number = u32::try_from(line["pid"].as_u64().unwrap()).unwrap();
    super::until("the next process is killed", || !is_alive(number));
    assert_eq!(running.gatehouse.process.wait().code(), Some(0));
}

/// A process that speaks the protocol until it breaks off.
struct Taker {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Taker {
    fn connect(folder: &Folder) -> Self {
        let writer = UnixStream::connect(control(folder)).unwrap();
        writer.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut taker = Self { reader: BufReader::new(writer.try_clone().unwrap()), writer };
        assert!(taker.line().contains("\"protocol\":1"));
        taker
    }

    fn say(&mut self, line: &str) -> &mut Self {
        writeln!(self.writer, "{line}").unwrap();
        self
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line
    }
}

#[test]
fn whoever_breaks_off_at_any_point_of_the_handover_changes_nothing() {
    let folder = Folder::new();
    let upstream = Upstream::start();
    let mut running = Upgradable::start(&folder, &yaml(&folder, &upstream));
    let address = running.gatehouse.tcp("http");
    let mut broken_off = 0;
    let mut goes_on = |running: &Upgradable| {
        broken_off += 1;
        super::until("it says so", || running.lines_with("not replaced, this process goes on") == broken_off);
        Client::tcp(address).get("x", "/").expect(200);
        assert!(UnixStream::connect(folder.join("edge.sock")).is_ok());
    };
    let ask = r#"{"protocol":1,"ask":"take-over"}"#;

    let mut taker = Taker::connect(&folder);
    assert!(taker.say(ask).line().starts_with("{\"sockets\":["));
    drop(taker);
    goes_on(&running);

    let mut taker = Taker::connect(&folder);
    taker.say(ask).line();
    taker.say("\"ready\"");
    assert_eq!(taker.line(), "", "the descriptors come first");
    goes_on(&running);

    let mut taker = Taker::connect(&folder);
    taker.say(ask).line();
    // Nobody has taken the descriptors that are with this byte; the system closes them.
    taker.say("\"send\"").reader.read_exact(&mut [0]).unwrap();
    taker.say(r#"{"failed":{"exit":1,"text":"it is too cold"}}"#);
    goes_on(&running);
    assert_eq!(running.lines_with("it is too cold"), 1);

    let mut taker = Taker::connect(&folder);
    taker.say(ask).line();
    taker.say("\"send\"").reader.read_exact(&mut [0]).unwrap();
    assert_eq!(taker.say("\"ready\"").line(), "\"go\"\n");
    drop(taker);
    goes_on(&running);

    let mut stranger = Taker::connect(&folder);
    assert!(
        stranger.say(r#"{"protocol":2,"ask":"reload"}"#).line().contains("version 1 of the control protocol")
    );
    let mut stranger = Taker::connect(&folder);
    assert_eq!(stranger.say("GET / HTTP/1.1").line(), "");

    running.upgrade();
    Client::tcp(address).get("x", "/").expect(200);
    running.stop();
    assert!(!exists(&folder.join("edge.sock")) && !exists(&control(&folder)));
}
