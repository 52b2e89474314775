//! A client of HTTP/2 with many streams at a time, that behaves as RFC 9113 §6.8 says when the server says goodbye.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::exchange::{Asked, NAME, Server, judge};
use super::ledger::Ledger;
use crate::harness::Dice;

const KIND: &str = "HTTP/2";
const STREAMS: usize = 12;

/// Rounds of streams at the same time, on a connection that is kept for as long as the server keeps it.
pub(super) async fn streams(server: Server, ledger: Arc<Ledger>, mut dice: Dice) {
    let mut connection: Option<SendRequest<Bytes>> = None;
    while !ledger.stops() {
        let open = match connection.take() {
            // An error: the server has said goodbye, or has closed.
            Some(open) => match open.ready().await {
                Ok(open) => open,
                Err(_) => {
                    ledger.closed_idle(KIND);
                    continue;
                }
            },
            None => match connect(&server).await {
                Ok(open) => open,
                Err(why) => {
                    ledger.failed(KIND, 0, &format!("connecting: {why}"));
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let mut round = JoinSet::new();
        for _ in 0..STREAMS {
            let asked = match dice.below(8) {
                0..3 => Asked::Which,
                3..5 => Asked::Up(0),
                5 | 6 => Asked::Up(1 + dice.below(20_000)),
                _ => Asked::Large,
            };
            let ledger = ledger.clone();
            let open = open.clone();
            round.spawn(async move { one(open, &ledger, &asked).await });
        }
        let mut goes_on = true;
        while let Some(ended) = round.join_next().await {
            goes_on &= ended.unwrap();
        }
        connection = goes_on.then_some(open);
        sleep(Duration::from_millis(dice.number() % 100)).await;
    }
}

async fn connect(server: &Server) -> Result<SendRequest<Bytes>, String> {
    let stream = timeout(super::exchange::PATIENCE, server.stream()).await;
    let stream = stream.map_err(|_| "no connection")?.map_err(|error| error.to_string())?;
    let (open, connection) = h2::client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 23)
        .handshake(stream)
        .await
        .map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    Ok(open)
}

/// One stream; whether the connection goes on.
async fn one(open: SendRequest<Bytes>, ledger: &Ledger, asked: &Asked) -> bool {
    let number = ledger.number();
    let begun = Instant::now();
    match timeout(asked.patience(), exchange(open, asked, number)).await {
        Ok(Ok((status, header, body))) => {
            match judge(asked, status, header.as_deref(), &body) {
                Ok(by) => ledger.done(KIND, number, by, begun.elapsed()),
                Err(why) => ledger.failed(KIND, number, &format!("{asked:?}: {why}")),
            }
            true
        }
        // The server has promised not to have looked at this stream (§6.8, §8.7): every client sends it again elsewhere.
        Ok(Err(Ended::Unsent)) => {
            ledger.repeated(KIND);
            false
        }
        Ok(Err(Ended::With(error))) if was_refused(&error) => {
            ledger.repeated(KIND);
            false
        }
        Ok(Err(Ended::With(error))) => {
            ledger.failed(KIND, number, &format!("{asked:?}: {error}"));
            false
        }
        Err(_) => {
            ledger.failed(KIND, number, &format!("{asked:?}: no answer"));
            false
        }
    }
}

/// Why a stream has no answer.
enum Ended {
    /// The connection's end was known before the request left.
    Unsent,
    With(h2::Error),
}

impl From<h2::Error> for Ended {
    fn from(error: h2::Error) -> Self {
        Self::With(error)
    }
}

fn was_refused(error: &h2::Error) -> bool {
    let is_goodbye = error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
    is_goodbye || (error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

async fn exchange(
    open: SendRequest<Bytes>,
    asked: &Asked,
    number: u64,
) -> Result<(u16, Option<String>, Vec<u8>), Ended> {
    let request = http::Request::builder()
        .method(asked.method())
        .uri(format!("https://{NAME}{}", asked.target(number)))
        .body(())
        .unwrap();
    let body = asked.body();
    let mut open = open.ready().await.map_err(|_| Ended::Unsent)?;
    let (answer, mut upload) = open.send_request(request, body.is_empty()).map_err(|_| Ended::Unsent)?;
    if !body.is_empty() {
        upload.send_data(body.into(), true)?;
    }
    let answer = answer.await?;
    let status = answer.status().as_u16();
    let header = answer.headers().get("x-configuration");
    let header = header.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let mut body = answer.into_body();
    let mut read = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        read.extend_from_slice(&piece);
    }
    Ok((status, header, read))
}
