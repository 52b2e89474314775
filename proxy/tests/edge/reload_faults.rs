//! Configurations that cannot be put in force: whatever is wrong with them, nothing changes.

use conf::{AccessLog, AccessLogFormat, AccessLogTarget, Bind};
use proxy::EdgeError;
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Running, config, counted, tcp, upstream_of};
use crate::reload_listeners::{ask, listener, saying};

/// Tries to reload: it is refused, everything is as before, and the port that the faulty configuration would have opened is not.
async fn check(faulty: conf::Edge, is_expected: impl Fn(&EdgeError) -> bool) {
    // A port that is free: taken, and given back.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut edge = Running::start(counted(saying("old"))).await;
    let (address, addresses) = (edge.address, edge.addresses.clone());
    let mut open = edge.connect().await;
    assert_eq!(ask(&mut open).await.text(), "old");
    let mut faulty = counted(faulty);
    faulty.listeners.insert(0, listener("also-new", &free.to_string()));
    let error = edge.try_reload(faulty).await.unwrap_err();
    assert!(is_expected(&error), "{error:?}");
    assert!(TcpStream::connect(free).await.is_err(), "what was opened is closed");
    assert_eq!((edge.address, &edge.addresses), (address, &addresses));
    assert_eq!(ask(&mut open).await.text(), "old");
    assert_eq!(edge.get("/").await.text(), "old");
    assert_eq!(edge.metric("gatehouse_edge_reloads_total{outcome=\"refused\"}").await.as_deref(), Some("1"));
    assert_eq!(edge.metric("gatehouse_edge_config_generation").await.as_deref(), Some("1"));
    edge.reload(counted(saying("new"))).await;
    assert_eq!(ask(&mut open).await.text(), "new", "the next one can be applied");
}

#[tokio::test]
async fn a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut faulty = saying("new");
    faulty.listeners.push(listener("taken", &taken.local_addr().unwrap().to_string()));
    check(faulty, |error| matches!(error, EdgeError::Bind { listener, .. } if listener == "taken")).await;
}

#[tokio::test]
async fn an_admin_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let edge = Running::start(saying("old")).await;
    let faulty = conf::Edge { admin: vec![Bind::Address(taken.local_addr().unwrap())], ..saying("new") };
    let mut edge = edge;
    let error = edge.try_reload(faulty).await.unwrap_err();
    assert!(matches!(error, EdgeError::Bind { listener, .. } if listener == "admin"));
    assert_eq!(edge.get("/").await.text(), "old");
}

#[tokio::test]
async fn an_access_log_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let target = AccessLogTarget::File(folder.path().join("missing/access.log"));
    let access_log = Some(AccessLog { target, format: AccessLogFormat::Json });
    check(conf::Edge { access_log, ..saying("new") }, |error| matches!(error, EdgeError::AccessLog(_))).await;
}

#[tokio::test]
async fn an_access_log_that_cannot_be_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("logs/access.log");
    std::fs::create_dir(folder.path().join("logs")).unwrap();
    let target = AccessLogTarget::File(path.clone());
    let access_log = Some(AccessLog { target, format: AccessLogFormat::Json });
    let mut edge = Running::start(conf::Edge { access_log: access_log.clone(), ..saying("old") }).await;
    std::fs::remove_dir_all(folder.path().join("logs")).unwrap();
    let error = edge.try_reload(conf::Edge { access_log, ..saying("new") }).await.unwrap_err();
    assert!(matches!(error, EdgeError::AccessLog(_)));
    assert_eq!(edge.get("/").await.text(), "old");
}

#[tokio::test]
async fn an_upstream_whose_path_is_too_long() {
    let server = conf::Server::Unix(format!("/{}", "x".repeat(200)).into());
    let faulty = config(vec![upstream_of("long", vec![server])], |_| saying("new").sites.remove(0).routes);
    check(faulty, |error| matches!(error, EdgeError::UpstreamPath { upstream, .. } if upstream == "long"))
        .await;
}

#[tokio::test]
async fn what_was_prepared_and_not_committed() {
    let mut edge = Running::start(counted(saying("old"))).await;
    let mut more = counted(saying("new"));
    more.listeners.push(listener("more", "127.0.0.1:0"));
    let mut change = edge.sockets.change();
    let prepared = edge.handle.prepare(more.clone().into(), &mut change).await.unwrap();
    let opened = tcp(&prepared.addresses()[1].1);
    assert_eq!(edge.get("/").await.text(), "old");
    drop((prepared, change));
    assert!(TcpStream::connect(opened).await.is_err());
    assert_eq!(edge.get("/").await.text(), "old");
    edge.reload(more).await;
    assert_eq!(edge.get("/").await.text(), "new");
    assert_eq!(edge.metric("gatehouse_edge_reloads_total{outcome=\"refused\"}").await.as_deref(), Some("1"));
}
