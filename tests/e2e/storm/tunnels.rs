//! WebSockets as the edge sees them: an upgrade, and then bytes in both directions for as long as both sides want.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::exchange::{Connection, Fault, NAME, PATIENCE, Server};
use super::ledger::Ledger;

const KIND: &str = "WebSocket message";

/// Sends numbered messages and gets each back, in order; connects anew only when it may have been cut off.
pub(super) async fn tunnel(server: Server, ledger: Arc<Ledger>) {
    while !ledger.stops() {
        let number = ledger.number();
        let since = Instant::now();
        let mut connection = match open(&server, number).await {
            Ok(connection) => {
                ledger.done("WebSocket opened", number, None, since.elapsed());
                connection
            }
            Err(why) => {
                ledger.failed("WebSocket opened", number, &why);
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let mut sequence = 0_u64;
        while !ledger.stops() {
            let begun = Instant::now();
            match echo(&mut connection, number, sequence).await {
                Ok(()) => ledger.message(KIND, begun.elapsed()),
                Err(_) if ledger.may_be_cut(since) => break,
                Err(why) => {
                    let age = since.elapsed();
                    ledger.failed(KIND, number, &format!("{why} at message {sequence}, after {age:?}"));
                    break;
                }
            }
            sequence += 1;
            sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn open(server: &Server, number: u64) -> Result<Connection, String> {
    let request = format!(
        "GET /socket?n={number} HTTP/1.1\r\nHost: {NAME}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let outcome = async {
        let mut connection = server.connect().await?;
        let answer = connection.exchange(request.as_bytes(), PATIENCE).await?;
        Ok((connection, answer.status))
    };
    match outcome.await {
        Ok((connection, 101)) => Ok(connection),
        Ok((_, status)) => Err(format!("status {status}")),
        Err(Fault::Unanswered(why) | Fault::Broken(why)) => Err(why),
    }
}

async fn echo(connection: &mut Connection, number: u64, sequence: u64) -> Result<(), String> {
    // From a few bytes to some packets.
    let mut message =
        format!("{number}:{sequence}\n").repeat(1 + usize::try_from(sequence % 50).unwrap() * 10);
    message.push('.');
    let exchange = async {
        connection.send(message.as_bytes()).await?;
        connection.receive(message.len()).await
    };
    match timeout(PATIENCE, exchange).await {
        Ok(Ok(echoed)) if echoed == message.as_bytes() => Ok(()),
        Ok(Ok(echoed)) => Err(format!("other bytes came back: {}", String::from_utf8_lossy(&echoed))),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}
