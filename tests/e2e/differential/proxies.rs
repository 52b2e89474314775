//! nginx, HAProxy and Gatehouse, each with as many lanes as cases run at once: a listener of its own and behind it an upstream of
//! its own, so that whatever arrives there during a case comes of that case.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::recorder::Recorder;
use crate::harness::{Certificates, Folder, Gatehouse, PATIENCE, Process, program};

/// The name in the certificate.
const NAME: &str = "a.example";
/// How long one answer may take; every proxy gives up on a request after a second.
const ANSWER: Duration = Duration::from_secs(30);

/// Who forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Ours,
    Nginx,
    Haproxy,
}

/// Our own first, as in the table.
pub(crate) const ALL: [Who; 3] = [Who::Ours, Who::Nginx, Who::Haproxy];

/// Where a lane begins.
#[derive(Debug, Clone)]
enum Entry {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// One way through one proxy.
pub(crate) struct Lane {
    pub(crate) who: Who,
    pub(crate) recorder: Recorder,
    plain: Entry,
    tls: Entry,
    certificates: Certificates,
}

/// The running proxies.
pub(crate) struct Proxies {
    /// Those of each proxy, in the order of [`ALL`].
    pub(crate) lanes: [Vec<Lane>; 3],
    gatehouse: Gatehouse,
    _others: [Process; 2],
    _folder: Folder,
}

impl Proxies {
    /// Starts the three with `count` lanes each.
    pub(crate) fn start(count: usize) -> Self {
        let folder = Folder::new();
        let certificates = Certificates::new(&folder, &[NAME]);
        let recorders = || -> Vec<Recorder> { (0..count).map(|_| Recorder::start()).collect() };
        let of_all = ALL.map(|_| recorders());
        let mut gatehouse = Gatehouse::start(&folder, &gatehouse_yaml(&certificates, &of_all[0]));
        let others = [
            start_nginx(&folder, &certificates, &of_all[1]),
            start_haproxy(&folder, &certificates, &of_all[2]),
        ];
        let mut entries = |who, lane: usize, kind: &str| match who {
            Who::Ours => Entry::Tcp(gatehouse.tcp(&format!("{kind}{lane}"))),
            Who::Nginx => Entry::Unix(folder.join(&format!("nginx-{kind}{lane}"))),
            Who::Haproxy => Entry::Unix(folder.join(&format!("haproxy-{kind}{lane}"))),
        };
        let mut which = ALL.into_iter();
        let lanes = of_all.map(|recorders| {
            let who = which.next().expect("as many as proxies");
            let mut lanes = Vec::new();
            for (lane, recorder) in recorders.into_iter().enumerate() {
                let (plain, tls) = (entries(who, lane, "plain"), entries(who, lane, "tls"));
                lanes.push(Lane { who, recorder, plain, tls, certificates: certificates.clone() });
            }
            lanes
        });
        for lane in lanes.iter().flatten() {
            lane.wait_until_listening();
        }
        Self { lanes, gatehouse, _others: others, _folder: folder }
    }

    /// What our own program has logged.
    pub(crate) fn log(&self) -> String {
        self.gatehouse.process.log()
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.gatehouse.process.is_running()
    }
}

/// A connection to a proxy.
pub(crate) enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Connection {
    /// Says that nothing more comes.
    pub(crate) fn half_close(&self) {
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lane {
    /// A plain connection.
    pub(crate) fn connect(&self) -> Connection {
        open(&self.plain).unwrap()
    }

    /// A connection that has agreed on HTTP/2.
    pub(crate) fn connect_h2(&self) -> StreamOwned<ClientConnection, Connection> {
        let mut config = (*self.certificates.client).clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from(NAME).unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        StreamOwned::new(connection, open(&self.tls).unwrap())
    }

    fn wait_until_listening(&self) {
        let deadline = Instant::now() + PATIENCE;
        for entry in [&self.plain, &self.tls] {
            while open(entry).is_err() {
                assert!(Instant::now() < deadline, "{:?} does not listen", self.who);
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

fn open(entry: &Entry) -> std::io::Result<Connection> {
    Ok(match entry {
        Entry::Tcp(address) => {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(ANSWER))?;
            stream.set_write_timeout(Some(ANSWER))?;
            Connection::Tcp(stream)
        }
        Entry::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(ANSWER))?;
            stream.set_write_timeout(Some(ANSWER))?;
            Connection::Unix(stream)
        }
    })
}

/// One worker each, so that the cases of a lane meet the same pool of upstream connections. Incomplete requests are given up after
/// a second; that is how a client sees that a proxy waits for more.
fn gatehouse_yaml(certificates: &Certificates, recorders: &[Recorder]) -> String {
    let (mut listeners, mut upstreams, mut sites) = (String::new(), String::new(), String::new());
    for (lane, recorder) in recorders.iter().enumerate() {
        listeners.push_str(&format!(
            "    - {{name: plain{lane}, binds: [{{address: \"127.0.0.1:0\"}}]}}\n    \
             - {{name: tls{lane}, binds: [{{address: \"127.0.0.1:0\"}}], tls: true}}\n"
        ));
        upstreams.push_str(&format!("    lane{lane}: {{servers: [\"{}\"]}}\n", recorder.address));
        sites.push_str(&format!(
            "    - {{hosts: [\"_\"], listeners: [plain{lane}, tls{lane}], routes: [{{prefix: /, upstream: lane{lane}}}]}}\n"
        ));
    }
    format!(
        "edge:\n  threads: 1\n  access_log: false\n  {tls}\n  \
           timeouts: {{header: 1s, body: 1s, idle: 3s}}\n  \
           listeners:\n{listeners}  upstreams:\n{upstreams}  sites:\n{sites}",
        tls = certificates.yaml()
    )
}

/// The guide's nginx, with upstream connections that are kept and the Host as received: what a desynchronisation needs.
fn start_nginx(folder: &Folder, certificates: &Certificates, recorders: &[Recorder]) -> Process {
    let mut servers = String::new();
    for (lane, recorder) in recorders.iter().enumerate() {
        servers.push_str(&format!(
            "upstream lane{lane} {{ server {address}; keepalive 8; }}\n\
             server {{\n  listen unix:{folder}/nginx-plain{lane};\n  listen unix:{folder}/nginx-tls{lane} ssl http2;\n  \
               location / {{\n    proxy_pass http://lane{lane};\n    proxy_http_version 1.1;\n    \
                 proxy_set_header Connection \"\";\n    proxy_set_header Host $http_host;\n  }}\n}}\n",
            address = recorder.address,
            folder = folder.path().display(),
        ));
    }
    let text = format!(
        "daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\naccess_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n\
           fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n\
           ssl_certificate {certificate}; ssl_certificate_key {key};\n\
           client_header_timeout 1s; client_body_timeout 1s; keepalive_timeout 3s; lingering_timeout 1s;\n\
           large_client_header_buffers 4 32k;\n\
         {servers}}}\n",
        folder = folder.path().display(),
        certificate = certificates.certificate.display(),
        key = certificates.key.display(),
    );
    let configuration = folder.write("nginx.conf", text);
    let mut command = Command::new(program("nginx"));
    command.arg("-c").arg(&configuration).arg("-p").arg(folder.path());
    Process::start("nginx", &mut command)
}

fn start_haproxy(folder: &Folder, certificates: &Certificates, recorders: &[Recorder]) -> Process {
    let read = |path: &PathBuf| std::fs::read_to_string(path).unwrap();
    let pem = read(&certificates.certificate) + &read(&certificates.key);
    let pem = folder.write_private("haproxy.pem", pem);
    let mut lanes = String::new();
    for (lane, recorder) in recorders.iter().enumerate() {
        lanes.push_str(&format!(
            "frontend lane{lane}\n  bind unix@{folder}/haproxy-plain{lane}\n  \
               bind unix@{folder}/haproxy-tls{lane} ssl crt {pem} alpn h2\n  default_backend lane{lane}\n\
             backend lane{lane}\n  server upstream {address}\n",
            folder = folder.path().display(),
            pem = pem.display(),
            address = recorder.address,
        ));
    }
    let text = format!(
        "global\n  nbthread 1\n  maxconn 1000\n  tune.bufsize 65536\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 1s\n  timeout server 10s\n  \
           timeout http-request 1s\n  timeout http-keep-alive 3s\n  option http-keep-alive\n  http-reuse always\n{lanes}"
    );
    let configuration = folder.write("haproxy.cfg", text);
    let mut command = Command::new(program("haproxy"));
    command.arg("-db").arg("-f").arg(&configuration);
    Process::start("haproxy", &mut command)
}
