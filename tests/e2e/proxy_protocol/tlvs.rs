//! What the edge says beside the addresses, as HAProxy and the auth service understand it.

use std::process::Command;

use serde_json::{Value, json};

use super::{HOST, edge};
use crate::harness::{Client, Folder, Process, Upstream, free_port, program, wait_until_listening};

#[test]
fn haproxy_as_the_receiver_reads_our_fields() {
    let folder = Folder::new();
    let port = free_port();
    let configuration = folder.write(
        "haproxy.cfg",
        format!(
            "defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
             frontend api\n  bind 127.0.0.1:{port} accept-proxy\n  \
             http-request return status 200 content-type text/plain \
             lf-string \"%[src]:%[src_port] %[fc_pp_authority] %[fc_pp_unique_id]\"\n"
        ),
    );
    let mut command = Command::new(program("haproxy"));
    let _haproxy = Process::start("haproxy", command.arg("-db").arg("-f").arg(configuration));
    let address = wait_until_listening(port).to_string();
    // HAProxy verifies the checksum: with a wrong one there would be no answer.
    for tlvs in ["[unique_id, authority, ssl, crc32c]", "[crc32c, authority, unique_id]"] {
        let mut edge = edge(&address, &format!("v2, proxy_tlvs: {tlvs}"));
        let mut client = Client::tls(&edge.certificates, HOST, edge.gatehouse.tcp("https"));
        let answer = client.get(HOST, "/").expect(200).text();
        let said: Vec<&str> = answer.split_whitespace().collect();
        assert_eq!(said[..2], [client.address().to_string().as_str(), HOST], "{answer}");
        // The name is the one in our own log.
        edge.gatehouse.process.wait_for("the request", |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["path"] == "/" && line["connection"] == json!(said[2])).then_some(())
        });
    }
}

#[test]
fn only_what_was_asked_for_is_said() {
    for (options, expected) in [
        ("v2", vec![0x02, 0x05, 0x20]),
        ("v2, proxy_tlvs: []", vec![]),
        ("v2, proxy_tlvs: [crc32c]", vec![0x03]),
        ("v2, proxy_tlvs: [ssl, unique_id]", vec![0x05, 0x20]),
        ("v1", vec![]),
    ] {
        let upstream = Upstream::with_proxy_protocol();
        let mut edge = edge(&upstream.address.to_string(), options);
        let mut client = Client::tls(&edge.certificates, HOST, edge.gatehouse.tcp("https"));
        client.get(HOST, "/").expect(200);
        let seen = upstream.only().proxy.unwrap();
        let mut kinds: Vec<u8> = seen.tlvs.iter().map(|(kind, _)| *kind).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, expected, "{options}");
        assert_eq!(seen.source, Some(client.address()));
    }
}

#[test]
fn connections_have_names_of_their_own_and_keep_them() {
    let upstream = Upstream::with_proxy_protocol();
    let mut edge = edge(&upstream.address.to_string(), "v2");
    let address = edge.gatehouse.tcp("https");
    let mut clients = [(); 3].map(|()| Client::tls(&edge.certificates, HOST, address));
    for round in 0..3 {
        for (index, client) in clients.iter_mut().enumerate() {
            client.get(HOST, &format!("/{index}/{round}")).expect(200);
        }
    }
    let mut names = std::collections::BTreeMap::new();
    for request in upstream.requests() {
        let index = request.target().split('/').nth(1).unwrap().to_owned();
        let name = request.proxy.as_ref().unwrap().text(0x05).unwrap().to_owned();
        assert_eq!(names.entry(name).or_insert_with(|| index.clone()), &index);
    }
    assert_eq!(names.len(), clients.len(), "{names:?}");
}
