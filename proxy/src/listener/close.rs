//! The end of a connection (RFC 9112 §9.6): send the rest, say that no more comes, and take what the client is still
//! sending for a moment. Closing at once would reset the connection, and the client's system may then throw away the
//! answer it has received.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::io::Remains;
use super::{ClientConnection, IoLimits};
use crate::metrics::Limit;

/// Closes a connection that Pingora has let go of.
pub(crate) async fn close(connection: &ClientConnection, limits: &IoLimits) {
    let Some(mut remains) = connection.take_remains() else { return };
    let Ok(sent) = timeout(limits.send.patience, send_rest(&mut remains)).await else {
        return connection.limit_hit(Limit::Send);
    };
    let lingers = connection.lingers.load(std::sync::atomic::Ordering::Relaxed);
    if sent.is_ok() && lingers && timeout(limits.linger, discard(&mut remains)).await.is_err() {
        // There is nothing more to be done for it.
        connection.limit_hit(Limit::Linger);
    }
}

async fn send_rest(remains: &mut Remains) -> std::io::Result<()> {
    remains.io.write_all(&remains.unsent).await?;
    remains.io.shutdown().await
}

/// Until the client closes too, or pauses. The bytes are not counted: a client on the same machine can have sent most of a large
/// upload before it looks for an answer, and the time bounds what it can make us do.
async fn discard(remains: &mut Remains) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(Ok(1..)) = timeout(LINGER_QUIET, remains.io.read(&mut buffer)).await {}
}

/// Enough for an answer to cross the world and for the client to stop.
const LINGER_QUIET: Duration = Duration::from_secs(2);
