//! What systemd hears, sd_notify(3), of reloads and upgrades.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use super::super::harness::{Folder, PATIENCE, Upgradable, Upstream};
use super::yaml;

/// A service manager that listens.
struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    fn new(folder: &Folder) -> Self {
        let socket = UnixDatagram::bind(folder.join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket }
    }

    /// The next message that is no word for the watchdog, its variables in order.
    fn next(&self) -> Vec<String> {
        loop {
            let said = self.any();
            if said != ["WATCHDOG=1"] {
                return said;
            }
        }
    }

    fn any(&self) -> Vec<String> {
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).expect("a message");
        String::from_utf8_lossy(&message[..length]).lines().map(str::to_owned).collect()
    }
}

#[test]
fn systemd_follows_the_service_to_the_next_process() {
    let folder = Folder::new();
    let (upstream, manager) = (Upstream::start(), Manager::new(&folder));
    let path = folder.join("notify").display().to_string();
    let mut running = Upgradable::start_with(&folder, &yaml(&folder, &upstream), &[("NOTIFY_SOCKET", &path)]);
    assert_eq!(manager.next(), ["READY=1"]);

    let asked = running.ask("reload");
    assert_eq!(asked.code, Some(0), "{}", asked.text);
    let check_reloading = || {
        let said = manager.next();
        assert_eq!(said.len(), 2, "{said:?}");
        assert_eq!(said[0], "RELOADING=1");
        let usec = said[1].strip_prefix("MONOTONIC_USEC=").unwrap();
        assert!(usec.parse::<u64>().unwrap() > 0);
    };
    check_reloading();
    assert_eq!(manager.next(), ["READY=1"]);

    let new = running.upgrade();
    check_reloading();
    assert_eq!(manager.next(), [format!("MAINPID={new}")], "from the old one, which is believed");
    assert_eq!(manager.next(), ["READY=1"], "from the new one, which is believed now");
    running.wait_until_gone(running.gatehouse.process.id());

    running.replace_by_script("exit 1");
    assert_eq!(running.ask("upgrade").code, Some(1));
    check_reloading();
    assert_eq!(manager.next(), ["READY=1"], "the same one goes on");
    running.stop();
    assert_eq!(manager.next(), ["STOPPING=1"], "and never by the one that was replaced");
}

#[test]
fn the_watchdog_hears_of_the_next_process_too() {
    let folder = Folder::new();
    let (upstream, manager) = (Upstream::start(), Manager::new(&folder));
    let path = folder.join("notify").display().to_string();
    let variables = [("NOTIFY_SOCKET", path.as_str()), ("WATCHDOG_USEC", "400000")];
    let mut running = Upgradable::start_with(&folder, &yaml(&folder, &upstream), &variables);
    assert_eq!(manager.any(), ["READY=1"]);
    let count = || {
        let begun = Instant::now();
        let words = (0..3).filter(|_| manager.any() == ["WATCHDOG=1"]).count();
        assert_eq!(words, 3);
        begun.elapsed()
    };
    assert!(count() >= Duration::from_millis(350), "the first at once, then twice in a period");
    running.upgrade();
    running.wait_until_gone(running.gatehouse.process.id());
    // What was said until now; then there is only one who speaks.
    manager.socket.set_nonblocking(true).unwrap();
    while manager.socket.recv(&mut [0; 64]).is_ok() {}
    manager.socket.set_nonblocking(false).unwrap();
    count();
    running.stop();
}
