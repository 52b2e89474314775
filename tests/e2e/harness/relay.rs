//! What DNS and port numbers are for everybody else: a forward proxy (`CONNECT`, RFC 9110 §9.3.6) that leads names and their usual
//! ports to listeners of a test. Programs that are told of it use real names, 443 and 8448, without anybody being root.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::client;

/// Which `name:port` is where.
pub(crate) type Names = Arc<HashMap<String, SocketAddr>>;

/// A running relay. It lives as long as the tests.
pub(crate) struct Relay {
    address: SocketAddr,
    asked: Arc<Mutex<BTreeSet<String>>>,
}

impl Relay {
    /// Connects from `source`, so that whoever is connected to knows who uses this relay.
    pub(crate) fn start(source: Ipv4Addr, names: Names) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(BTreeSet::new()));
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (names, seen) = (Arc::clone(&names), Arc::clone(&seen));
                std::thread::spawn(move || relay(stream, source, &names, &seen));
            }
        });
        Self { address, asked }
    }

    /// As programs are told of it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every `name:port` that was asked for, also those that nobody has.
    pub(crate) fn asked(&self) -> BTreeSet<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// Serves one connection; whatever goes wrong ends it.
fn relay(
    stream: TcpStream,
    source: Ipv4Addr,
    names: &HashMap<String, SocketAddr>,
    asked: &Mutex<BTreeSet<String>>,
) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let name = line.strip_prefix("CONNECT ")?.split(' ').next()?.to_owned();
    while line.trim() != "" {
        line.clear();
        reader.read_line(&mut line).ok()?;
    }
    asked.lock().unwrap().insert(name.clone());
    let mut writer = stream;
    let Some(address) = names.get(&name) else {
        writer.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").ok()?;
        return None;
    };
    let mut there = client::connect(source, *address);
    // Long polls are quiet for longer than an answer may take.
    there.set_read_timeout(None).ok()?;
    writer.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").ok()?;
    let (mut back, mut client) = (there.try_clone().ok()?, writer);
    std::thread::spawn(move || {
        let _ = copy(&mut back, &mut client);
        let _ = client.shutdown(Shutdown::Both);
    });
    let _ = copy(&mut reader, &mut there);
    let _ = there.shutdown(Shutdown::Both);
    Some(())
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            count => to.write_all(&buffer[..count])?,
        }
    }
}
