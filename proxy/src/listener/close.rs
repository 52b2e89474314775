//! The end of a connection (RFC 9112 §9.6): send the rest, say that no more comes, and take what the client is still
//! sending for a moment. Closing at once would reset the connection, and the client's system may then throw away the
//! answer it has received.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::io::Remains;
use super::{ClientConnection, IoLimits};

/// Closes a connection that Pingora has let go of.
pub(crate) async fn close(connection: &ClientConnection, limits: &IoLimits) {
    let Some(mut remains) = connection.take_remains() else { return };
    let is_sent = matches!(timeout(limits.send, send_rest(&mut remains)).await, Ok(Ok(())));
    if is_sent && connection.lingers.load(std::sync::atomic::Ordering::Relaxed) {
        // Past the deadline there is nothing more to be done for it.
        let _ = timeout(LINGER, discard(&mut remains)).await;
    }
}

async fn send_rest(remains: &mut Remains) -> std::io::Result<()> {
    remains.io.write_all(&remains.unsent).await?;
    remains.io.shutdown().await
}

async fn discard(remains: &mut Remains) {
    let mut buffer = vec![0; 16 * 1024];
    let mut discarded = 0;
    while discarded < LINGER_BYTES {
        match remains.io.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => discarded += count,
        }
    }
}

/// Enough for an answer to cross the world and for the client to stop.
const LINGER: Duration = Duration::from_secs(1);
/// What a client may have under way: about the largest receive window.
const LINGER_BYTES: usize = 1024 * 1024;
