//! The registry, with real sockets.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;

use super::*;

fn tcp(address: &str) -> Bind {
    Bind::Address(address.parse().unwrap())
}

fn unix(path: &Path, mode: u32) -> Bind {
    Bind::Socket { path: path.to_owned(), mode: Some(mode) }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn port(bound: &Bound) -> u16 {
    match bound.address {
        BoundAddress::Tcp(address) => address.port(),
        BoundAddress::Unix(_) => panic!("not TCP"),
    }
}

/// Makes these binds, of one listener `web`, what `sockets` holds.
async fn set(sockets: &Sockets, binds: &[Bind]) -> (Vec<Bound>, Changed) {
    let mut change = sockets.change();
    let mut bound = Vec::new();
    for bind in binds {
        bound.push(change.bind("web", bind, 2).await.unwrap());
    }
    (bound, change.commit())
}

fn connects(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// What another process would get.
fn taken_over(sockets: &Sockets) -> Sockets {
    let next = Sockets::default();
    next.adopt(sockets.offer().unwrap()).unwrap();
    next
}

#[tokio::test]
async fn what_is_held_is_given_again() {
    let sockets = Sockets::default();
    let (first, changed) = set(&sockets, &[tcp("127.0.0.1:0")]).await;
    assert_eq!((changed.opened.len(), changed.closed.len(), first[0].held), (1, 0, false));
    let waiting = TcpStream::connect(("127.0.0.1", port(&first[0]))).unwrap();
    let explicit = tcp(&first[0].address.to_string());
    let (second, changed) = set(&sockets, &[explicit]).await;
    assert_eq!((changed, second[0].held), (Changed::default(), true));
    assert_eq!((&second[0].address, second[0].sockets.len()), (&first[0].address, 2));
    drop(first);
    // It waited in the queue of one of them.
    let listeners: Vec<_> =
        second.into_iter().flat_map(|bound| bound.sockets).map(|one| one.into_listener().unwrap()).collect();
    let (one, two) = (listeners[0].accept(), listeners[1].accept());
    let remote = tokio::select! { accepted = one => accepted, accepted = two => accepted }.unwrap().1;
    assert_eq!(remote, crate::Remote::Ip(waiting.local_addr().unwrap()));
}

#[tokio::test]
async fn forms_that_mean_one_address_are_one() {
    let sockets = Sockets::default();
    let (first, _) = set(&sockets, &[Bind::Host { host: Some("127.0.0.1".into()), port: 0 }]).await;
    let port = port(&first[0]);
    for form in [tcp(&format!("127.0.0.1:{port}")), tcp(&format!("[::ffff:127.0.0.1]:{port}"))] {
        let (bound, changed) = set(&sockets, &[form]).await;
        assert_eq!((bound[0].held, changed), (true, Changed::default()));
    }
    // Of the addresses of a name the one that is held, even if another comes first.
    let localhost = Bind::Host { host: Some("localhost".into()), port };
    let (bound, changed) = set(&sockets, &[localhost]).await;
    assert_eq!((bound[0].held, changed), (true, Changed::default()));

    let (everywhere, _) = set(&sockets, &[Bind::Host { host: None, port: 0 }]).await;
    let (bound, changed) = set(&sockets, &[tcp(&everywhere[0].address.to_string())]).await;
    assert_eq!((bound[0].held, changed), (true, Changed::default()));
}

#[tokio::test]
async fn a_commit_closes_what_is_not_asked_for() {
    let sockets = Sockets::default();
    let (first, _) = set(&sockets, &[tcp("127.0.0.1:0"), tcp("127.0.0.1:0")]).await;
    let (kept, removed) = (port(&first[0]), port(&first[1]));
    drop(first);
    assert!(connects(kept) && connects(removed), "the registry keeps them open");
    let (_, changed) = set(&sockets, &[tcp(&format!("127.0.0.1:{kept}")), tcp("127.0.0.1:0")]).await;
    assert_eq!(changed.closed, [("web".to_owned(), BoundAddress::Tcp(([127, 0, 0, 1], removed).into()))]);
    assert_eq!(changed.opened.len(), 1);
    assert!(connects(kept) && !connects(removed));
    sockets.close();
    assert!(!connects(kept));
}

#[tokio::test]
async fn a_dropped_change_closes_what_it_opened_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    let sockets = Sockets::default();
    let (first, _) = set(&sockets, &[tcp("127.0.0.1:0"), unix(&old, 0o600)]).await;
    let held = port(&first[0]);
    let opened = {
        let mut change = sockets.change();
        change.bind("web", &tcp(&format!("127.0.0.1:{held}")), 5).await.unwrap();
        change.bind("web", &unix(&old, 0o666), 1).await.unwrap();
        change.bind("web", &unix(&new, 0o600), 1).await.unwrap();
        let opened = port(&change.bind("web", &tcp("127.0.0.1:0"), 1).await.unwrap());
        assert!(connects(opened) && new.exists());
        opened
    };
    assert!(!connects(opened) && !new.exists());
    assert!(connects(held) && UnixStream::connect(&old).is_ok());
    assert_eq!(mode(&old), 0o600);
    assert_eq!(sockets.addresses().len(), 2);
}

#[tokio::test]
async fn port_zero_is_found_by_listener_and_place() {
    let sockets = Sockets::default();
    let mut change = sockets.change();
    let web =
        [change.bind("web", &tcp("127.0.0.1:0"), 1).await, change.bind("web", &tcp("127.0.0.1:0"), 1).await];
    let api = change.bind("api", &tcp("127.0.0.1:0"), 1).await.unwrap();
    let web = web.map(Result::unwrap);
    change.commit();

    let mut change = sockets.change();
    let again = change.bind("api", &tcp("127.0.0.1:0"), 1).await.unwrap();
    assert_eq!(again.address, api.address);
    for before in &web {
        let again = change.bind("web", &tcp("127.0.0.1:0"), 1).await.unwrap();
        assert_eq!((again.held, &again.address), (true, &before.address));
    }
    let third = change.bind("web", &tcp("127.0.0.1:0"), 1).await.unwrap();
    assert!(!third.held && web.iter().all(|before| before.address != third.address));
    assert_eq!(change.commit().closed, []);
}

#[tokio::test]
async fn more_sockets_join_and_wait_for_the_commit_while_fewer_are_all_given() {
    let sockets = Sockets::default();
    let (first, _) = set(&sockets, &[tcp("127.0.0.1:0")]).await;
    let bind = tcp(&first[0].address.to_string());
    let port = port(&first[0]);
    let held: Vec<_> =
        first.into_iter().flat_map(|bound| bound.sockets).map(|one| one.into_listener().unwrap()).collect();

    // A connection to a socket that goes away with the change would be reset: none is.
    let mut change = sockets.change();
    let bound = change.bind("web", &bind, 8).await.unwrap();
    assert_eq!(bound.sockets.len(), 8);
    let waiting: Vec<_> = (0..64).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    drop((bound, change));
    let mut accepted = Vec::new();
    while accepted.len() < waiting.len() {
        let (one, two) = (held[0].accept(), held[1].accept());
        accepted.push(tokio::select! { accepted = one => accepted, accepted = two => accepted }.unwrap());
    }

    let mut change = sockets.change();
    let grown = change.bind("web", &bind, 4).await.unwrap();
    change.commit();
    let grown: Vec<_> = grown.sockets.into_iter().map(|one| one.into_listener().unwrap()).collect();
    let mut taken = [0; 4];
    let mut connections = Vec::new();
    for _ in 0..120 {
        connections.push(TcpStream::connect(("127.0.0.1", port)).unwrap());
        let (zero, one, two, three) =
            (grown[0].accept(), grown[1].accept(), grown[2].accept(), grown[3].accept());
        let index = tokio::select! { _ = zero => 0, _ = one => 1, _ = two => 2, _ = three => 3 };
        taken[index] += 1;
    }
    assert!(taken.iter().all(|count| *count > 5), "{taken:?}");

    let fewer = sockets.change().bind("web", &bind, 1).await.unwrap();
    assert_eq!(fewer.sockets.len(), 4, "each has a queue, and somebody has to serve it");
}

#[tokio::test]
async fn a_listener_moves_from_all_addresses_to_one_and_back() {
    let sockets = Sockets::default();
    let (first, _) = set(&sockets, &[Bind::Host { host: None, port: 0 }]).await;
    let port = port(&first[0]);
    let held: Vec<_> =
        first.into_iter().flat_map(|bound| bound.sockets).map(|one| one.into_listener().unwrap()).collect();
    let one_address = tcp(&format!("127.0.0.1:{port}"));
    {
        // Until the commit nothing goes elsewhere.
        let mut change = sockets.change();
        change.bind("web", &one_address, 2).await.unwrap();
        let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (one, two) = (held[0].accept(), held[1].accept());
        tokio::select! { accepted = one => accepted, accepted = two => accepted }.unwrap();
    }
    let (bound, changed) = set(&sockets, &[one_address]).await;
    assert_eq!((bound[0].held, changed.opened.len(), changed.closed.len()), (false, 1, 1));
    // While it is open, nobody else can take the port at another address, which would be in the way back.
    let (_, changed) = set(&sockets, &[Bind::Host { host: None, port }]).await;
    assert_eq!((changed.opened.len(), changed.closed.len()), (1, 1));
    drop((held, bound));
    assert!(connects(port));
}

#[tokio::test]
async fn one_address_is_not_given_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let sockets = Sockets::default();
    let mut change = sockets.change();
    let port = port(&change.bind("web", &tcp("127.0.0.1:0"), 2).await.unwrap());
    change.bind("web", &unix(&path, 0o600), 1).await.unwrap();
    for bind in [tcp(&format!("127.0.0.1:{port}")), Bind::Host { host: None, port }] {
        let error = change.bind("api", &bind, 2).await.unwrap_err().to_string();
        assert!(
            error.ends_with(&format!("is asked for twice: listener web has 127.0.0.1:{port}")),
            "{error}"
        );
    }
    let error = change.bind("api", &unix(&path, 0o600), 1).await.unwrap_err();
    let path = path.display();
    assert_eq!(error.to_string(), format!("unix:{path} is asked for twice: listener web has unix:{path}"));
    change.commit();
    // Of `[::]` and `127.0.0.1`, too: a start refuses it, so a reload does.
    let (everywhere, _) = set(&sockets, &[Bind::Host { host: None, port: 0 }]).await;
    let BoundAddress::Tcp(address) = everywhere[0].address else { panic!("not TCP") };
    let port = address.port();
    let mut change = sockets.change();
    change.bind("web", &tcp(&format!("127.0.0.1:{port}")), 2).await.unwrap();
    let error = change.bind("api", &Bind::Host { host: None, port }, 2).await.unwrap_err().to_string();
    assert!(error.ends_with(&format!("is asked for twice: listener web has 127.0.0.1:{port}")), "{error}");
}

#[tokio::test]
async fn a_unix_socket_stays_at_its_path_and_takes_its_mode() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let sockets = Sockets::default();
    let (first, _) = set(&sockets, &[unix(&path, 0o600)]).await;
    let _waiting = UnixStream::connect(&path).unwrap();
    let mut change = sockets.change();
    let second = change.bind("web", &unix(&path, 0o660), 3).await.unwrap();
    assert_eq!((second.held, second.sockets.len(), mode(&path)), (true, 3, 0o600));
    assert_eq!(change.commit(), Changed::default());
    assert_eq!(mode(&path), 0o660);
    drop(first);
    let listener = second.sockets.into_iter().next().unwrap().into_listener().unwrap();
    listener.accept().await.unwrap();
    let (_, changed) = set(&sockets, &[]).await;
    assert_eq!(changed.closed.len(), 1);
    assert!(path.exists(), "an accept loop still has it");
    drop(listener);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_unix_socket_whose_file_is_gone_is_bound_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let sockets = Sockets::default();
    let (first, _) = set(&sockets, &[unix(&path, 0o600)]).await;
    fs::remove_file(&path).unwrap();
    let (second, _) = set(&sockets, &[unix(&path, 0o600)]).await;
    assert!(!second[0].held);
    drop(first);
    assert!(UnixStream::connect(&path).is_ok());
}

#[tokio::test]
async fn the_next_process_serves_what_waits_for_the_former() {
    let folder = tempfile::tempdir().unwrap();
    let (kept, left) = (folder.path().join("kept"), folder.path().join("left"));
    let former = Sockets::default();
    let (bound, _) = set(&former, &[tcp("127.0.0.1:0"), unix(&kept, 0o600), unix(&left, 0o600)]).await;
    let waiting = TcpStream::connect(("127.0.0.1", port(&bound[0]))).unwrap();

    let next = taken_over(&former);
    let (taken, changed) = set(&next, &[tcp("127.0.0.1:0"), unix(&kept, 0o600)]).await;
    assert_eq!(changed.opened, []);
    assert_eq!(changed.closed.len(), 1);
    assert_eq!(taken[0].address, bound[0].address, "port 0 is where it was");
    assert!(left.exists(), "the former process may still go on");

    former.release();
    next.own();
    assert!(!left.exists(), "nobody serves it any more");
    former.close();
    drop(bound);
    assert!(kept.exists(), "it was handed over");
    let mut taken = taken.into_iter();
    let listeners: Vec<_> =
        taken.next().unwrap().sockets.into_iter().map(|one| one.into_listener().unwrap()).collect();
    let (one, two) = (listeners[0].accept(), listeners[1].accept());
    let remote = tokio::select! { accepted = one => accepted, accepted = two => accepted }.unwrap().1;
    assert_eq!(remote, crate::Remote::Ip(waiting.local_addr().unwrap()));
    next.close();
    drop(taken);
    assert!(!kept.exists(), "the last owner removes it");
}

#[tokio::test]
async fn a_next_process_that_fails_leaves_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let (kept, left) = (folder.path().join("kept"), folder.path().join("left"));
    let former = Sockets::default();
    let (bound, _) = set(&former, &[tcp("127.0.0.1:0"), unix(&kept, 0o600), unix(&left, 0o600)]).await;
    let next = taken_over(&former);
    let (taken, _) = set(&next, &[tcp("127.0.0.1:0"), unix(&kept, 0o600)]).await;
    next.close();
    drop((taken, next));
    assert!(connects(port(&bound[0])));
    assert!(UnixStream::connect(&kept).is_ok() && UnixStream::connect(&left).is_ok());
    former.close();
    drop(bound);
    assert!(!kept.exists() && !left.exists());
}

#[tokio::test]
async fn inherited_sockets_are_handed_on_whether_asked_for_or_not() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let former = Sockets::default();
    former.lock().groups.push(Group {
        listener: "web".into(),
        address: BoundAddress::Tcp(address),
        origin: Origin::Inherited(Place { index: 3, name: Some("https".into()) }),
        sockets: vec![Arc::new(socket.into())],
    });
    let inherited = Bind::Fd { index: 3, kind: SocketKind::Tcp };
    let (bound, changed) = set(&former, &[inherited]).await;
    assert_eq!((bound[0].held, bound[0].sockets.len(), changed), (true, 2, Changed::default()));

    let next = taken_over(&former);
    let (_, changed) = set(&next, &[]).await;
    assert_eq!(changed, Changed::default(), "it stays open");
    let last = taken_over(&next);
    let mut change = last.change();
    let wrong = change.bind("web", &Bind::Fd { index: 3, kind: SocketKind::Unix }, 1).await.unwrap_err();
    assert_eq!(wrong.to_string(), format!("inherited socket 3: it is {address}, see `kind`"));
    let again = change.bind("web", &inherited_tcp(3), 4).await.unwrap();
    assert_eq!((again.held, again.sockets.len(), again.address), (true, 4, BoundAddress::Tcp(address)));
    assert!(
        change.bind("web", &inherited_tcp(3), 1).await.unwrap_err().to_string().contains("asked for twice")
    );
    assert!(change.bind("web", &inherited_tcp(4), 1).await.is_err(), "never had");
    drop(change);

    for same in [Bind::FdName { name: "https".into(), kind: SocketKind::Tcp }, Bind::Address(address)] {
        let mut change = last.change();
        let bound = change.bind("https", &same, 2).await.unwrap();
        assert_eq!((bound.held, bound.sockets.len(), bound.address), (true, 2, BoundAddress::Tcp(address)));
        let twice = change.bind("web", &inherited_tcp(3), 1).await.unwrap_err();
        assert!(twice.to_string().contains("asked for twice"), "{same:?}: {twice}");
    }
    let unknown = Bind::FdName { name: "http".into(), kind: SocketKind::Tcp };
    assert!(last.change().bind("web", &unknown, 1).await.is_err(), "there is none of this name");
}

fn inherited_tcp(index: usize) -> Bind {
    Bind::Fd { index, kind: SocketKind::Tcp }
}

#[tokio::test]
async fn what_does_not_listen_is_not_adopted() {
    let former = Sockets::default();
    set(&former, &[tcp("127.0.0.1:0")]).await;
    let mut passed = former.offer().unwrap();
    let client = TcpStream::connect(passed_address(&passed)).unwrap();
    passed[1].descriptor = client.into();
    let error = Sockets::default().adopt(passed).unwrap_err();
    assert_eq!(error.to_string(), "a socket of listener web cannot be taken over: it does not listen");
}

fn passed_address(passed: &[super::super::Passed]) -> SocketAddr {
    let socket = Socket::from(passed[0].descriptor.try_clone().unwrap());
    socket.local_addr().unwrap().as_socket().unwrap()
}
