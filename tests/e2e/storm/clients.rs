//! Clients of HTTP/1.1: with kept connections, with new ones, long polls, and logins.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use super::exchange::{Asked, Connection, Fault, NAME, PATIENCE, Server};
use super::ledger::Ledger;
use crate::harness::Dice;

/// One request after the other on a connection that is kept for as long as the server keeps it.
pub(super) async fn kept(kind: &'static str, server: Server, ledger: Arc<Ledger>, mut dice: Dice) {
    let mut connection: Option<Connection> = None;
    while !ledger.stops() {
        if let Some(open) = &mut connection
            && open.is_closed().await
        {
            ledger.closed_idle(kind);
            connection = None;
        }
        let asked = any(&mut dice);
        connection = one(kind, &server, &ledger, &asked, connection).await;
        sleep(Duration::from_millis(dice.number() % 40)).await;
    }
}

/// Each request on a connection of its own.
pub(super) async fn fresh(kind: &'static str, server: Server, ledger: Arc<Ledger>, mut dice: Dice) {
    while !ledger.stops() {
        let asked = any(&mut dice);
        one(kind, &server, &ledger, &asked, None).await;
        sleep(Duration::from_millis(10 + dice.number() % 60)).await;
    }
}

/// Answers that take from `shortest` to `longest`, one after the other.
pub(super) async fn polls(
    server: Server,
    ledger: Arc<Ledger>,
    mut dice: Dice,
    shortest: Duration,
    longest: Duration,
) {
    let mut connection = None;
    while !ledger.stops() {
        if let Some(open) = &mut connection
            && Connection::is_closed(open).await
        {
            ledger.closed_idle("long poll");
            connection = None;
        }
        let span = u64::try_from((longest - shortest).as_millis()).unwrap();
        let asked = Asked::Poll(shortest + Duration::from_millis(dice.number() % (span + 1)));
        connection = one("long poll", &server, &ledger, &asked, connection).await;
        sleep(Duration::from_millis(dice.number() % 40)).await;
    }
}

fn any(dice: &mut Dice) -> Asked {
    match dice.below(10) {
        0..4 => Asked::Which,
        4..7 => Asked::Up(0),
        7..9 => Asked::Up(1 + dice.below(20_000)),
        _ => Asked::Large,
    }
}

/// One request; the connection, if it goes on.
async fn one(
    kind: &'static str,
    server: &Server,
    ledger: &Ledger,
    asked: &Asked,
    connection: Option<Connection>,
) -> Option<Connection> {
    let number = ledger.number();
    let begun = Instant::now();
    let is_reused = connection.is_some();
    let outcome = async {
        let mut connection = match connection {
            Some(connection) => connection,
            None => server.connect().await?,
        };
        let answer = connection.exchange(&asked.request(number), asked.patience()).await?;
        Ok((connection, answer))
    };
    match outcome.await {
        Ok((connection, answer)) => {
            match answer.judge(asked) {
                Ok(by) => ledger.done(kind, number, by, begun.elapsed()),
                Err(why) => ledger.failed(kind, number, &format!("{asked:?}: {why}")),
            }
            (!answer.is_last()).then_some(connection)
        }
        // Not sent again here, since the next of this client's requests is as good; counted, and shown.
        Err(Fault::Unanswered(_)) if is_reused => {
            ledger.repeated(kind);
            None
        }
        Err(Fault::Unanswered(why) | Fault::Broken(why)) => {
            ledger.failed(kind, number, &format!("{asked:?}: {why}"));
            None
        }
    }
}

/// Logs in and out again, over and over, each on a new connection.
pub(super) async fn logins(
    kind: &'static str,
    server: Server,
    ledger: Arc<Ledger>,
    user: &'static str,
    password: &'static str,
) {
    while !ledger.stops() {
        let login = json!({
            "type": "m.login.password", "password": password,
            "identifier": {"type": "m.id.user", "user": user},
        });
        if let Some(token) = post(kind, &server, &ledger, "login", None, &login).await
            && let Some(token) = token["access_token"].as_str()
        {
            post(kind, &server, &ledger, "logout", Some(token), &json!({})).await;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

async fn post(
    kind: &'static str,
    server: &Server,
    ledger: &Ledger,
    what: &str,
    token: Option<&str>,
    body: &Value,
) -> Option<Value> {
    let number = ledger.number();
    let begun = Instant::now();
    let body = body.to_string();
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!(
        "POST /_matrix/client/v3/{what}?n={number} HTTP/1.1\r\nHost: {NAME}\r\n{token}Content-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let outcome = async { server.connect().await?.exchange(request.as_bytes(), PATIENCE).await };
    match outcome.await {
        Ok(answer) if answer.status == 200 => {
            // The direct listener of the auth service has no access log.
            match kind {
                DIRECT => ledger.message(kind, begun.elapsed()),
                _ => ledger.done(kind, number, None, begun.elapsed()),
            }
            serde_json::from_slice(&answer.body).ok()
        }
        Ok(answer) => {
            let why = String::from_utf8_lossy(&answer.body).into_owned();
            ledger.failed(kind, number, &format!("{what}: {}: {why}", answer.status));
            None
        }
        Err(Fault::Unanswered(why) | Fault::Broken(why)) => {
            ledger.failed(kind, number, &format!("{what}: {why}"));
            None
        }
    }
}

/// Logins at a listener of the auth service itself.
pub(super) const DIRECT: &str = "login, auth listener";
