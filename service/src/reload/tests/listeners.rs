//! Listeners that come, go and change, and the connections on them.

use super::*;

fn other() -> Vec<AuthListener> {
    vec![listener("other", &[Resource::Health], "127.0.0.1:0")]
}

#[tokio::test]
async fn a_connection_goes_on_and_its_next_request_sees_the_new_configuration() {
    let running = Running::start().await;
    let mut client = running.connect().await;
    assert_eq!(client.get("/health").await.status, 200);
    running.reload(|config| config.http.listeners[0].prefix = "/auth".into()).await.expect("a reload");
    assert_eq!(client.get("/health").await.status, 404);
    assert_eq!(client.get("/auth/health").await.status, 200);
    let renamed = running.reload(|config| {
        config.http.listeners[0].name = "renamed".into();
        config.http.listeners[0].binds = vec![Bind::Address(running.address())];
        config.http.listeners[0].prefix = String::new();
    });
    renamed.await.expect("a reload");
    assert_eq!(client.get("/health").await.status, 200, "the same socket under another name");
    assert_eq!(running.connect().await.get("/health").await.status, 200);
    running.end().await;
}

#[tokio::test]
async fn a_request_keeps_what_it_has_begun_with() {
    let running = Running::start().await;
    let mut client = running.connect().await;
    let request = posting("/_matrix/client/v3/login", "", &login_of("alice"));
    let (begun, rest) = request.split_at(request.len() - 5);
    client.write(begun).await;
    // Its head has been taken once this is answered: both are on one thread, and this one began later.
    running.connect().await.get("/health").await;
    let reload = running.reload(|config| {
        config.http.listeners[0].resources = vec![Resource::Health];
        config.matrix.secret = Some(conf::Secret::new("another"));
    });
    reload.await.expect("a reload");
    client.write(rest).await;
    token_of(&client.answer().await);
    assert_eq!(client.login("alice").await.status, 404, "the next one");
    running.end().await;
}

#[tokio::test]
async fn listeners_come_go_and_move() {
    let running = Running::start().await;
    let (mut idle, mut busy) = (running.connect().await, running.connect().await);
    assert_eq!(idle.get("/health").await.status, 200);
    let request = posting("/_matrix/client/v3/login", "", &login_of("alice"));
    let (begun, rest) = request.split_at(request.len() - 5);
    busy.write(begun).await;
    running.connect().await.get("/health").await;

    let addresses = running.reload(|config| config.http.listeners = other()).await.expect("a reload");
    assert_eq!(addresses.len(), 1);
    assert_ne!(addresses[0], running.address());
    assert_eq!(Client::to(addresses[0]).await.get("/health").await.status, 200);
    idle.closes().await;
    busy.write(rest).await;
    let answer = busy.answer().await;
    assert_eq!(answer.status, 200, "as if nothing had happened: {answer:?}");
    assert!(answer.says_close(), "{answer:?}");
    busy.closes().await;
    let refused = async {
        while TcpStream::connect(running.address()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("the old socket is closed");
    running.end().await;
}

#[tokio::test]
async fn who_sends_one_request_after_the_other_is_told_that_it_was_the_last() {
    let running = Running::start().await;
    let mut client = running.connect().await;
    assert_eq!(client.get("/health").await.status, 200);
    running.reload(|config| config.http.listeners = other()).await.expect("a reload");
    // Sent within the second in which it may be on its way already.
    let answer = client.get("/health").await;
    assert_eq!((answer.status, answer.says_close()), (200, true), "{answer:?}");
    client.closes().await;
    running.end().await;
}

#[tokio::test]
async fn a_connection_that_has_not_asked_anything_yet_gets_its_answer() {
    let running = Running::start().await;
    let mut fresh = running.connect().await;
    running.connect().await.get("/health").await;
    running.reload(|config| config.http.listeners = other()).await.expect("a reload");
    let answer = fresh.get("/health").await;
    assert_eq!((answer.status, answer.says_close()), (200, true), "{answer:?}");
    running.end().await;
}

#[tokio::test]
async fn who_is_believed_changes_with_the_next_request() {
    let running = Running::start().await;
    let mut client = running.connect().await;
    let ask = "GET /connection-info HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n";
    client.write(ask).await;
    assert_eq!(client.answer().await.json()["client"], "203.0.113.7");
    running.reload(|config| config.http.trusted_proxies.clear()).await.expect("a reload");
    client.write(ask).await;
    assert_eq!(client.answer().await.json()["client"], "127.0.0.1");
    running.end().await;
}

#[tokio::test]
async fn a_connection_that_would_not_be_accepted_like_that_any_more_ends() {
    let running = Running::start().await;
    let mut plain = running.connect().await;
    assert_eq!(plain.get("/health").await.status, 200);
    running.reload(|config| config.http.listeners[0].proxy_protocol = true).await.expect("a reload");
    plain.closes().await;

    let mut announced = running.connect().await;
    announced.write("PROXY TCP4 203.0.113.7 192.0.2.1 1 2\r\n").await;
    assert_eq!(announced.get("/connection-info").await.json()["client"], "203.0.113.7");
    running.reload(|config| config.http.listeners[0].prefix = "/x".into()).await.expect("a reload");
    let answer = announced.get("/x/connection-info").await;
    assert_eq!(answer.json()["client"], "203.0.113.7", "a change that makes no difference to it");
    running.reload(|config| config.http.trusted_proxies.clear()).await.expect("a reload");
    announced.closes().await;
    running.end().await;
}

#[tokio::test]
async fn a_faulty_configuration_changes_nothing() {
    let running = Running::start().await;
    let mut client = running.connect().await;
    let token = token_of(&client.login("alice").await);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken_at = taken.local_addr().expect("an address").to_string();
    let folder = running.fixture.folder().to_owned();
    std::fs::write(folder.join("matrix-secret"), "").expect("an empty file");

    type Fault<'a> = (&'a str, Box<dyn Fn(&mut Auth) + 'a>);
    let faults: Vec<Fault<'_>> = vec![
        (
            "a port of another process",
            Box::new(|config| {
                config.http.listeners.insert(0, listener("new", &[Resource::Health], "127.0.0.1:0"));
                config.http.listeners.push(listener("taken", &[Resource::Health], &taken_at));
            }),
        ),
        (
            "a database that is not there",
            Box::new(|config| config.database.uri = conf::Secret::new("sqlite:///proc/nowhere/auth.db")),
        ),
        (
            "a server that does not answer",
            Box::new(|config| {
                config.database.uri = conf::Secret::new("postgresql://nobody@127.0.0.1:1/nothing");
                config.database.connect_timeout = Duration::from_secs(1);
            }),
        ),
        (
            "a folder that is not there",
            Box::new(|config| {
                let path = Some(folder.join("nowhere"));
                config.http.listeners[0].resources.push(Resource::Assets { path });
            }),
        ),
        ("an empty file instead of a secret", Box::new(|config| config.matrix.secret = None)),
        (
            "a scheme that cannot hash",
            Box::new(|config| {
                config.passwords.schemes[0].algorithm =
                    conf::HashAlgorithm::Argon2id { memory_kib: 1, iterations: 0, parallelism: 1000 };
            }),
        ),
    ];
    let before = running.sockets.addresses();
    for (what, fault) in &faults {
        let changed = running.reload(|config| {
            config.http.listeners[0].prefix = "/x".into();
            fault(config);
        });
        assert!(!changed.await.expect_err(what).to_string().is_empty());
        assert_eq!(running.sockets.addresses(), before, "{what}");
        assert_eq!(client.get("/health").await.status, 200, "{what}");
        assert!(client.is_active(&token).await, "{what}");
        assert_ne!(token_of(&client.login("alice").await), token, "{what}");
    }
    running.end().await;
}

#[tokio::test]
async fn limits_of_connections_change_and_those_that_are_open_count() {
    let running = Running::with(|config| {
        config.http.listeners = vec![web()];
        config.http.trusted_proxies.clear();
    })
    .await;
    let mut first = running.connect().await;
    assert_eq!(first.get("/health").await.status, 200);
    running.reload(|config| config.http.limits.max_connections_per_ip = 1).await.expect("a reload");
    running.connect().await.closes().await;
    assert_eq!(first.get("/health").await.status, 200, "who is in stays in");
    running.reload(|config| config.http.limits.max_connections_per_ip = 2).await.expect("a reload");
    assert_eq!(running.connect().await.get("/health").await.status, 200);
    running.end().await;
}

#[tokio::test]
async fn numbers_go_on() {
    let running = Running::start().await;
    let mut client = running.connect().await;
    client.login("alice").await;
    let logins = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("gatehouse_auth_logins_total{result=\"ok\"}"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).expect("a number")
    };
    assert_eq!(logins(&client.get("/metrics").await.body), 1);
    running.reload(|config| config.compat_token_ttl = Duration::from_secs(60)).await.expect("a reload");
    client.login("alice").await;
    assert_eq!(logins(&client.get("/metrics").await.body), 2);
    running.end().await;
}

#[tokio::test]
async fn a_service_that_has_ended_changes_no_more() {
    let running = Running::start().await;
    let mut config = (*running.handle.state().await.config).clone();
    config.http.listeners = other();
    let mut change = running.sockets.change();
    let folder = running.fixture.folder().to_owned();
    let prepared = running.handle.prepare(Arc::new(config), &folder, &mut change).await.expect("prepared");
    let late = tcp(&prepared.addresses())[0];
    running.end().await;
    prepared.commit();
    drop(change);
    assert!(TcpStream::connect(late).await.is_err());
}
