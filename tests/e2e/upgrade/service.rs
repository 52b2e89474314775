//! The auth service alone, replaced while it serves.

use super::super::harness::{Client, FakeSynapse, Folder, Upgradable, auth_yaml};
use super::{Door, Load, exists};

#[test]
fn the_auth_service_is_replaced_too() {
    let folder = Folder::new();
    let synapse = FakeSynapse::start();
    let yaml = format!(
        "{}\
http:
  public_base: https://auth.example.com/
  listeners:
    - name: web
      resources: [{{name: health}}]
      binds: [{{address: \"127.0.0.1:0\"}}, {{socket: {}/web.sock}}]
",
        auth_yaml(folder.path(), &synapse.url()),
        folder.path().display()
    );
    let mut running = Upgradable::start_auth(&folder, &yaml);
    let address = running.gatehouse.tcp("web");
    Client::tcp(address).get("x", "/health").expect(200);
    let load = Load::start_at("/health", &[Door::Tcp(address), Door::Unix(folder.join("web.sock"))]);
    load.wait_for(20);
    for _ in 0..3 {
        let old = running.serving;
        running.replace();
        running.upgrade();
        running.wait_until_gone(old);
        load.wait_for(20);
    }
    running.replace_by_script("exit 3");
    let asked = running.ask("upgrade");
    assert_eq!(asked.code, Some(1), "{}", asked.text);
    load.wait_for(20);
    load.end();
    running.stop();
    assert!(!exists(&folder.join("web.sock")));
}
