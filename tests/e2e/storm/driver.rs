//! Makes the weather, lets the clients go, and draws the balance.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::clients::{self, DIRECT};
use super::configurations::{Configuration, FAULTY, Ingredients};
use super::exchange::{Asked, LARGE, NAME, PATIENCE, Server};
use super::ledger::{Counts, Ledger};
use super::processes::{Generation, Generations, Look};
use super::{http2, tunnels};
use crate::harness::{
    self, Authority, Certificates, Dice, FakeSynapse, Folder, Process, Recorded, Reply, Upstream, add_user,
    free_port, run_to_end,
};

/// What happens to the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weather {
    Calm,
    Reloads,
    ReloadsAndUpgrades,
    Kill,
}

const RELOAD_EVERY: Duration = Duration::from_millis(200);
const UPGRADE_EVERY: Duration = Duration::from_secs(5);
const USER: &str = "stormy";
const PASSWORD: &str = "correct horse battery staple";

/// A process and everything around it, before the storm.
pub(super) struct Storm {
    weather: Weather,
    lasts: Duration,
    ledger: Arc<Ledger>,
    generations: Generations,
    process: Process,
    places: [u16; 2],
    plain: Server,
    secure: Server,
    direct: Server,
    /// What each configuration is in a file.
    files: BTreeMap<usize, String>,
    /// Of both certificates, as the client sees them.
    leaves: [Vec<u8>; 2],
    reloads: Reloads,
    /// One storm at a time: they would only take the processors from each other.
    _turn: MutexGuard<'static, ()>,
    _servers: (Vec<Upstream>, FakeSynapse, [Certificates; 2], [Folder; 2]),
    // Last: it goes away after everything in it.
    folder: Folder,
}

/// How often what was done.
#[derive(Debug, Default)]
struct Reloads {
    by_command: usize,
    by_signal: usize,
    refused: usize,
    upgrades: usize,
    slowest_reload: Duration,
    slowest_upgrade: Duration,
}

/// How it went.
pub(super) struct Report {
    counts: BTreeMap<&'static str, Counts>,
    pub(super) failures: Vec<String>,
    generations: Vec<Generation>,
    reloads: Reloads,
    log_lines: usize,
    lasted: Duration,
    weather: Weather,
    /// Of the process that served, before the clients came and some time after they left; of long storms.
    idle_descriptors: Option<(usize, usize)>,
    log: String,
}

impl Storm {
    /// Starts everything.
    pub(super) fn new(weather: Weather, lasts: Duration) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        // Whoever failed had the turn, and has it no more.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = Folder::new();
        let authority = Authority::new();
        let folders = [Folder::new(), Folder::new()];
        let certificates = [authority.issue(&folders[0], &[NAME]), authority.issue(&folders[1], &[NAME])];
        let upstreams = Configuration::ALL.map(upstream);
        let common = Upstream::forgetful(common);
        let synapse = FakeSynapse::start();
        // Long polls end within it, WebSockets do not.
        let drain = Duration::from_secs(if is_long(lasts) { 30 } else { 8 });
        let ledger = Arc::new(Ledger::new(drain));
        let places = [free_port(), free_port()];
        let ingredients = Ingredients {
            folder: folder.path(),
            certificates: &certificates,
            upstreams: &upstreams,
            common: &common,
            synapse: &synapse.url(),
            places,
            drain_seconds: drain.as_secs(),
        };
        let files: BTreeMap<usize, String> =
            Configuration::ALL.iter().map(|one| one.yaml(&ingredients)).enumerate().collect();
        install(folder.path());
        let configuration = folder.write("gatehouse.yaml", &files[&0]);
        let generations = Generations::watch(folder.path());
        let mut process = start(folder.path(), &configuration);
        let address = |process: &mut Process, listener: &str| {
            process.wait_for(listener, |line| {
                let line: serde_json::Value = serde_json::from_str(line).ok()?;
                let is_it = line["message"] == "listening" && line["listener"] == listener;
                is_it.then(|| line["address"].as_str()?.parse().ok())?
            })
        };
        let plain = Server { address: address(&mut process, "http"), tls: None };
        let tls = Some(with_alpn(&certificates[0], b"http/1.1"));
        let secure = Server { address: address(&mut process, "https"), tls };
        let direct = Server { address: address(&mut process, "direct"), tls: None };
        add_user(&configuration, USER, PASSWORD, &[]);
        let leaves = [0, 1].map(|which: usize| leaf(&certificates[which].certificate));
        let mut servers: Vec<Upstream> = upstreams.into();
        servers.push(common);
        Self {
            weather,
            lasts,
            ledger,
            generations,
            process,
            places,
            plain,
            secure,
            direct,
            files,
            leaves,
            reloads: Reloads::default(),
            _turn: turn,
            _servers: (servers, synapse, certificates, folders),
            folder,
        }
    }

    /// Lets the clients go, makes the weather for as long as it lasts, and lets everything come to an end.
    pub(super) fn rage(mut self) -> Report {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let before = self.generations.descriptors();
        let clients = self.send_clients(&runtime);
        let begun = Instant::now();
        match self.weather {
            Weather::Calm => std::thread::sleep(self.lasts),
            Weather::Kill => self.kill_and_start(),
            Weather::Reloads | Weather::ReloadsAndUpgrades => self.change(&runtime, begun),
        }
        self.ledger.stop();
        runtime.block_on(async {
            for client in clients {
                client.await.unwrap();
            }
        });
        let lasted = begun.elapsed();
        let idle_descriptors = self.is_long().then(|| (before, self.generations.settle(before)));
        self.generations.signal(Signal::TERM);
        let left = self.generations.wait_for_end(self.ledger.drain + harness::PATIENCE);
        if left > 0 {
            self.ledger.wrong(&format!("{left} processes have not ended"));
        }
        let log_lines = match self.weather {
            // Whoever is killed writes no log.
            Weather::Kill => 0,
            _ => self.ledger.check_logs(self.folder.path()),
        };
        let (counts, failures) = self.ledger.take();
        Report {
            counts,
            failures,
            generations: self.generations.all(),
            reloads: self.reloads,
            log_lines,
            lasted,
            weather: self.weather,
            idle_descriptors,
            log: last_lines(&self.process.log(), 40),
        }
    }

    fn is_long(&self) -> bool {
        is_long(self.lasts)
    }

    fn send_clients(&self, runtime: &tokio::runtime::Runtime) -> Vec<tokio::task::JoinHandle<()>> {
        let (plain, secure, direct) = (&self.plain, &self.secure, &self.direct);
        let h2 = Server { tls: Some(with_alpn(&self._servers.2[0], b"h2")), ..secure.clone() };
        let (shortest, longest) = if self.is_long() { (5, 20) } else { (1, 4) };
        let (shortest, longest) = (Duration::from_secs(shortest), Duration::from_secs(longest));
        let mut clients = Vec::new();
        let mut case = 0;
        let ledger = || self.ledger.clone();
        let mut dice = || {
            case += 1;
            Dice::of_case(1, case)
        };
        for _ in 0..6 {
            clients.push(runtime.spawn(clients::kept("kept", plain.clone(), ledger(), dice())));
            clients.push(runtime.spawn(clients::kept("kept, TLS", secure.clone(), ledger(), dice())));
        }
        for _ in 0..4 {
            clients.push(runtime.spawn(clients::fresh("new", plain.clone(), ledger(), dice())));
            clients.push(runtime.spawn(clients::fresh("new, TLS", secure.clone(), ledger(), dice())));
        }
        for _ in 0..3 {
            clients.push(runtime.spawn(http2::streams(h2.clone(), ledger(), dice())));
            clients.push(runtime.spawn(tunnels::tunnel(plain.clone(), ledger())));
            clients.push(runtime.spawn(tunnels::tunnel(secure.clone(), ledger())));
        }
        for number in 0..8 {
            let server = if number % 2 == 0 { plain } else { secure };
            clients.push(runtime.spawn(clients::polls(server.clone(), ledger(), dice(), shortest, longest)));
        }
        for (kind, server) in [("login", plain), ("login, TLS", secure), (DIRECT, direct)] {
            clients.push(runtime.spawn(clients::logins(kind, server.clone(), ledger(), USER, PASSWORD)));
        }
        clients
    }

    /// In the middle, SIGKILL, and a new process on the same ports.
    fn kill_and_start(&mut self) {
        std::thread::sleep(self.lasts / 2);
        self.process.kill();
        // The ports were the system's choice; another process cannot be asked to take them again with port 0.
        let path = self.folder.write(
            "again.yaml",
            self.files[&0].replace("127.0.0.1:0\"}], tls", &format!("{}\"}}], tls", self.secure.address)),
        );
        self.process = start(self.folder.path(), &path);
        std::thread::sleep(self.lasts / 2);
    }

    /// Reloads, and upgrades if there are to be some, each at its time.
    fn change(&mut self, runtime: &tokio::runtime::Runtime, begun: Instant) {
        let mut next_upgrade = begun + UPGRADE_EVERY;
        let mut next_reload = begun + RELOAD_EVERY;
        let mut number = 0;
        while begun.elapsed() < self.lasts {
            std::thread::sleep(next_reload.saturating_duration_since(Instant::now()));
            if self.weather == Weather::ReloadsAndUpgrades && Instant::now() >= next_upgrade {
                self.upgrade();
                next_upgrade += UPGRADE_EVERY;
            }
            number += 1;
            self.reload(runtime, number);
            // What could not be done in time is left out, not done all at once.
            next_reload = (next_reload + RELOAD_EVERY).max(Instant::now());
        }
    }

    fn reload(&mut self, runtime: &tokio::runtime::Runtime, number: usize) {
        let which = number % Configuration::ALL.len();
        let configuration = Configuration::ALL[which];
        if number % 10 == 5 {
            return self.reload_faulty(number);
        }
        self.put(&self.files[&which]);
        if number % 3 == 1 {
            self.reloads.by_signal += 1;
            self.generations.signal(Signal::HUP);
            return;
        }
        let begun = Instant::now();
        let output = self.command("reload");
        self.reloads.by_command += 1;
        self.reloads.slowest_reload = self.reloads.slowest_reload.max(begun.elapsed());
        if !output.status.success() {
            return self.ledger.wrong(&format!("reload {number} to {configuration}: {}", said(&output)));
        }
        if let Err(why) = runtime.block_on(self.is_in_force(configuration)) {
            self.ledger.wrong(&format!("after reload {number} to {configuration}: {why}"));
        }
    }

    /// A file with a fault: the command says so, and a signal changes nothing.
    fn reload_faulty(&mut self, number: usize) {
        self.put(FAULTY);
        if number % 20 == 5 {
            self.generations.signal(Signal::HUP);
        } else {
            let output = self.command("reload");
            if output.status.code() != Some(78) {
                self.ledger.wrong(&format!("reload {number} of a faulty file: {}", said(&output)));
            }
        }
        self.reloads.refused += 1;
    }

    /// A file that has been read is never half of one.
    fn put(&self, yaml: &str) {
        let next = self.folder.write("next.yaml", yaml);
        std::fs::rename(next, self.folder.join("gatehouse.yaml")).unwrap();
    }

    fn upgrade(&mut self) {
        install(self.folder.path());
        // The new process reads the file: a faulty one would, rightly, be refused.
        self.put(&self.files[&0]);
        let before = self.generations.newest();
        let begun = Instant::now();
        let output = self.command("upgrade");
        self.ledger.note_upgrade(begun, Instant::now());
        self.reloads.upgrades += 1;
        self.reloads.slowest_upgrade = self.reloads.slowest_upgrade.max(begun.elapsed());
        if !output.status.success() {
            self.ledger.wrong(&format!("upgrade: {}", said(&output)));
        } else if self.generations.newest() == before {
            self.ledger.wrong("upgrade: there is no new process");
        }
    }

    fn command(&self, name: &str) -> Output {
        let mut command = Command::new(self.folder.join("gatehouse"));
        command.arg(name).arg("-c").arg(self.folder.join("gatehouse.yaml"));
        run_to_end(&mut command, "")
    }

    /// Who asks now, on a new connection, is answered by this configuration; its certificate is shown, and its listeners are there.
    async fn is_in_force(&self, configuration: Configuration) -> Result<(), String> {
        for server in [&self.plain, &self.secure] {
            let mut connection = server.connect().await.map_err(|fault| format!("{fault:?}"))?;
            let request = Asked::Which.request(self.ledger.number());
            let answer =
                connection.exchange(&request, PATIENCE).await.map_err(|fault| format!("{fault:?}"))?;
            let by = answer.judge(&Asked::Which)?;
            if by != Some(configuration) {
                return Err(format!("{by:?} answers"));
            }
        }
        let shown = certificate(&self.secure).await.map_err(|error| format!("TLS: {error}"))?;
        if shown != self.leaves[configuration.certificate()] {
            return Err("another certificate is shown".to_owned());
        }
        for place in self.places {
            let is_open = tokio::net::TcpStream::connect(("127.0.0.1", place)).await.is_ok();
            if is_open != (configuration.place(self.places) == Some(place)) {
                return Err(format!(
                    "the listener at port {place} is {}",
                    if is_open { "there" } else { "missing" }
                ));
            }
        }
        let has_socket = std::os::unix::net::UnixStream::connect(self.folder.join("edge.sock")).is_ok();
        if has_socket != (configuration == Configuration::D) {
            return Err(format!("the Unix socket is {}", if has_socket { "there" } else { "missing" }));
        }
        Ok(())
    }
}

/// Whether there is time for long polls of the usual length, and for what is kept a while to go.
fn is_long(lasts: Duration) -> bool {
    lasts > Duration::from_secs(60)
}

/// A new copy of the executable under the same name, as a package brings one.
fn install(folder: &Path) {
    let program = std::env::var_os("STORM_PROGRAM").map(PathBuf::from);
    let program = program.unwrap_or_else(|| env!("CARGO_BIN_EXE_gatehouse").into());
    let next = folder.join("gatehouse.next");
    std::fs::copy(&program, &next).unwrap();
    std::fs::rename(next, folder.join("gatehouse")).unwrap();
}

fn start(folder: &Path, configuration: &Path) -> Process {
    let mut command = Command::new(folder.join("gatehouse"));
    command.env_remove("GATEHOUSE_CONFIG").env_remove("GATEHOUSE_LOG").env_remove("NOTIFY_SOCKET");
    command.arg("run").arg("-c").arg(configuration);
    Process::start("gatehouse", &mut command)
}

fn last_lines(log: &str, count: usize) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn said(output: &Output) -> String {
    format!(
        "{}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout).trim(),
        String::from_utf8_lossy(&output.stderr).trim()
    )
}

/// The upstream of one configuration: says which it is, and what came.
fn upstream(configuration: Configuration) -> Upstream {
    Upstream::forgetful(move |request| {
        let target = request.target();
        let path = target.split('?').next().unwrap_or_default();
        let body = serde_json::json!({
            "upstream": configuration.to_string(), "path": path, "received": request.body_length,
        });
        Reply::Json(200, body.to_string())
    })
}

fn common(request: &Recorded) -> Reply {
    let target = request.target();
    let milliseconds = target.split_once("ms=").and_then(|(_, rest)| rest.split('&').next()?.parse().ok());
    match target.split('?').next().unwrap_or_default() {
        "/large" => Reply::Flood(LARGE as u64),
        "/socket" => Reply::Echo,
        _ => Reply::Late(Duration::from_millis(milliseconds.unwrap_or(0))),
    }
}

fn with_alpn(certificates: &Certificates, protocol: &[u8]) -> Arc<rustls::ClientConfig> {
    let mut config = (*certificates.client).clone();
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config)
}

fn leaf(file: &Path) -> Vec<u8> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    CertificateDer::from_pem_file(file).unwrap().to_vec()
}

/// What the server shows to a new connection.
async fn certificate(server: &Server) -> std::io::Result<Vec<u8>> {
    let stream = tokio::net::TcpStream::connect(server.address).await?;
    let name = rustls::pki_types::ServerName::try_from(NAME).unwrap();
    let mut config = (**server.tls.as_ref().unwrap()).clone();
    // With a resumed session, it would be the certificate of that session.
    config.resumption = rustls::client::Resumption::disabled();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    Ok(tls
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first)
        .map(|leaf| leaf.to_vec())
        .unwrap_or_default())
}

impl Report {
    /// Nothing failed, and something was done by clients of every kind.
    pub(super) fn expect_unharmed(&self) {
        assert!(self.failures.is_empty(), "{self}\nlog:\n{}", self.log);
        for (kind, counts) in &self.counts {
            assert!(counts.done > 0, "{kind}: nothing was done\n{self}");
            // Reloads close nothing; only a process that goes away may.
            let repeated = if self.weather == Weather::ReloadsAndUpgrades {
                0
            } else {
                counts.repeated + counts.closed_idle
            };
            assert_eq!(repeated, 0, "{kind}: connections were closed\n{self}");
        }
        assert_eq!(self.counts.len(), 11, "kinds of clients\n{self}");
    }

    /// The load is the same from the beginning to the end: so is what the process that serves holds, be it one or one after another.
    pub(super) fn expect_no_leak(&self) {
        if let Some((before, after)) = self.idle_descriptors {
            assert!(
                after <= before + 16,
                "{before} descriptors before the clients came, {after} after they left\n{self}"
            );
        }
        let served: Vec<&Look> =
            self.generations.iter().flat_map(|one| &one.looks).filter(|look| look.is_newest).collect();
        // The first is for warming up.
        let fifth = served.len() / 5;
        let check = |name: &str, what: fn(&Look) -> u64, slack: u64| {
            let most = |part: usize| {
                served[part * fifth..(part + 1) * fifth]
                    .iter()
                    .map(|look| what(look))
                    .max()
                    .unwrap_or_default()
            };
            let (early, late) = (most(1), most(4));
            assert!(
                late <= early * 5 / 4 + slack,
                "{name}: {early} in the beginning, {late} at the end\n{self}"
            );
        };
        // A login's connection to the auth service is kept for ten seconds: a short storm sees them become more.
        let slack = if self.idle_descriptors.is_some() { 40 } else { 250 };
        check("descriptors", |look| look.descriptors as u64, slack);
        check("memory", |look| look.resident_bytes, 32 << 20);
        check("threads", |look| look.threads as u64, 8);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reloads { by_command, by_signal, refused, upgrades, slowest_reload, slowest_upgrade } =
            &self.reloads;
        writeln!(
            f,
            "{:?}, {:.0} s: {} reloads ({by_command} by command, at most {slowest_reload:.0?}; {by_signal} by SIGHUP), {refused} of \
             faulty files, {upgrades} upgrades (at most {slowest_upgrade:.0?}).\n",
            self.weather,
            self.lasted.as_secs_f32(),
            by_command + by_signal,
        )?;
        writeln!(f, "| clients | answered | failed | sent again | closed while idle | slowest |")?;
        writeln!(f, "| --- | ---: | ---: | ---: | ---: | ---: |")?;
        for (kind, Counts { done, failed, closed_idle, repeated, slowest }) in &self.counts {
            writeln!(f, "| {kind} | {done} | {failed} | {repeated} | {closed_idle} | {slowest} ms |")?;
        }
        writeln!(f, "\n{} lines in the access logs.\n", self.log_lines)?;
        if let Some((before, after)) = self.idle_descriptors {
            writeln!(f, "Descriptors without clients: {before} before, {after} afterwards.\n")?;
        }
        writeln!(
            f,
            "| process | newest for | ended after | descriptors, first / most / last | MiB, first / most / last | threads |"
        )?;
        writeln!(f, "| --- | ---: | ---: | ---: | ---: | ---: |")?;
        for generation in &self.generations {
            let newest: Vec<_> = generation.looks.iter().filter(|look| look.is_newest).collect();
            let (Some(first), Some(last)) = (newest.first(), newest.last()) else { continue };
            writeln!(
                f,
                "| {} | {} s | {:.0} s | {} / {} / {} | {} / {} / {} | {} |",
                generation.pid,
                newest.len() / 4,
                (generation.last - generation.first).as_secs_f32(),
                first.descriptors,
                generation.most(|look| look.descriptors),
                last.descriptors,
                first.resident_bytes >> 20,
                generation.most(|look| look.resident_bytes) >> 20,
                last.resident_bytes >> 20,
                generation.most(|look| look.threads),
            )?;
        }
        for failure in self.failures.iter().take(40) {
            writeln!(f, "{failure}")?;
        }
        match self.failures.len() {
            0 => Ok(()),
            count => writeln!(f, "{count} failures"),
        }
    }
}
