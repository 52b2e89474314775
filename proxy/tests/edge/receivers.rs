//! PROXY headers as others read them: nginx and HAProxy as the receiving side. Without the program there is nothing
//! to test; `tests/run` installs both.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use conf::{Action, ProxyVersion};

use crate::harness::{Running, config, prefix, upstream_of};

/// A server that is stopped at the end of the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(program: &str, arguments: &[&str]) -> Option<Server> {
    let path = ["/usr/sbin", "/usr/bin", "/usr/local/sbin"].map(|folder| Path::new(folder).join(program));
    let Some(path) = path.iter().find(|path| path.exists()) else {
        println!("{program} is not installed: nothing tested");
        return None;
    };
    let child =
        Command::new(path).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    Some(Server(child))
}

fn edge_to(socket: &Path, version: ProxyVersion) -> conf::Edge {
    let server = conf::Server::Unix(socket.to_owned());
    let upstream = conf::Upstream { proxy_protocol: Some(version), ..upstream_of("up", vec![server]) };
    config(vec![upstream], |upstreams| vec![prefix("/", Action::Upstream(upstreams[0].clone()))])
}

/// Interleaved clients; the answer is the address that the receiver believes.
async fn check(socket: &Path) {
    for _ in 0..100 {
        if tokio::net::UnixStream::connect(socket).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let edge = Running::start(edge_to(socket, version)).await;
        let mut clients = [edge.connect().await, edge.connect().await];
        for _ in 0..3 {
            for client in &mut clients {
                let port = client.stream.local_addr().unwrap().port();
                client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
                let answer = client.answer().await;
                assert_eq!(
                    (answer.status, answer.text().trim()),
                    (200, format!("127.0.0.1:{port}").as_str())
                );
            }
        }
    }
}

#[tokio::test]
async fn nginx_reads_our_proxy_headers() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("up.sock");
    let file = folder.path().join("nginx.conf");
    let text = format!(
        "daemon off; master_process off; pid {0}/pid; error_log {0}/error.log;\n\
         events {{}}\nhttp {{ access_log off; client_body_temp_path {0}/b; proxy_temp_path {0}/p; fastcgi_temp_path {0}/f;\n\
         uwsgi_temp_path {0}/u; scgi_temp_path {0}/s;\n\
         server {{ listen unix:{1} proxy_protocol; return 200 $proxy_protocol_addr:$proxy_protocol_port; }} }}\n",
        folder.path().display(),
        socket.display()
    );
    std::fs::write(&file, text).unwrap();
    let Some(_server) =
        start("nginx", &["-c", file.to_str().unwrap(), "-p", folder.path().to_str().unwrap()])
    else {
        return;
    };
    check(&socket).await;
}

#[tokio::test]
async fn haproxy_reads_our_proxy_headers() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("up.sock");
    let file = folder.path().join("haproxy.cfg");
    let text = format!(
        "defaults\n mode http\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n\
         frontend up\n bind unix@{} accept-proxy\n http-request return status 200 content-type text/plain lf-string %[src]:%[src_port]\n",
        socket.display()
    );
    std::fs::write(&file, text).unwrap();
    let Some(_server) = start("haproxy", &["-db", "-f", file.to_str().unwrap()]) else { return };
    check(&socket).await;
}
