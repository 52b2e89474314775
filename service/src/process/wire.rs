//! What is said over the control socket: a line of JSON for each message, in turns. Unknown fields are ignored, so that a newer
//! version can say more; what an older one would misunderstand gets another number of the protocol.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use accept::Label;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::Fault;

/// Version of the messages.
pub(super) const PROTOCOL: u32 = 1;
/// For the next word of somebody who only has to say it.
pub(super) const PROMPT: Duration = Duration::from_secs(10);
/// Longest line. A label of a socket has some 100 bytes, and a process may have some hundred sockets.
const LONGEST: usize = 1024 * 1024;

/// The first word: of the process that listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// Its version.
    pub(super) gatehouse: String,
    pub(super) protocol: u32,
    pub(super) pid: u32,
    /// The configuration it runs with.
    pub(super) files: Vec<PathBuf>,
}

/// The second word: what is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ask {
    pub(super) protocol: u32,
    pub(super) ask: Wish,
}

/// What a process can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Wish {
    /// Read the configuration again. An [`Answer`] follows.
    Reload,
    /// Start the executable that lies at your path, and let it take over. An [`Answer`] follows.
    Upgrade,
    /// Give me your sockets. An [`Offer`] follows, then words of both in turn.
    TakeOver,
}

/// The end of a reload or an upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Exit code for whoever asked.
    pub exit: u8,
    /// What there is to say.
    pub lines: Vec<String>,
    /// Nothing was done, for another process has taken over: ask again.
    #[serde(default)]
    pub elsewhere: bool,
}

impl Answer {
    /// Of something that was done.
    pub(super) fn done(lines: Vec<String>) -> Self {
        Self { exit: 0, lines, elsewhere: false }
    }

    /// Of something that was not.
    pub(super) fn failed(fault: &Fault, headline: Option<&str>) -> Self {
        let lines = headline.into_iter().chain(fault.text.lines()).map(str::to_owned).collect();
        Self { exit: fault.exit, lines, elsewhere: false }
    }
}

/// From the process that has the sockets.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Offer {
    /// What the descriptors will be, in this order; they are sent once the other side says [`Word::Send`].
    Sockets(Vec<Label>),
    /// Not now.
    Refused(String),
}

/// From the process that takes over.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Word {
    /// Send the descriptors.
    Send,
    /// I serve, and can go on alone.
    Ready,
    /// I give up; go on.
    Failed(Fault),
    /// The sockets' files are mine now: stop.
    Owned,
}

/// From the process that was taken over: it has let go of the sockets' files.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verdict {
    /// Go on alone.
    Go,
}

/// Why a word does not come, or does not go.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The other process is gone.
    #[error("the other process closed the connection")]
    Closed,
    /// The other process is silent.
    #[error("no word from the other process within {} s", .0.as_secs())]
    Late(Duration),
    /// More than a megabyte without an end.
    #[error("a message is too long")]
    TooLong,
    /// Not what is spoken here.
    #[error("a message makes no sense")]
    Malformed(#[from] serde_json::Error),
    /// The system's word.
    #[error("the connection fails")]
    Io(#[source] io::Error),
}

/// One end of a connection.
#[derive(Debug)]
pub(super) struct Wire {
    stream: UnixStream,
    read: Vec<u8>,
}

impl Wire {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, read: Vec::new() }
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Sends one message.
    ///
    /// # Errors
    /// [`WireError`], when it cannot be sent within 10 s.
    pub(super) async fn send(&mut self, message: &(impl Serialize + Sync)) -> Result<(), WireError> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        let sent = timeout(PROMPT, self.stream.write_all(&line)).await;
        sent.map_err(|_| WireError::Late(PROMPT))?.map_err(WireError::from)
    }

    /// The next message.
    ///
    /// # Errors
    /// [`WireError`], when there is none within `patience`.
    pub(super) async fn receive<T: DeserializeOwned>(&mut self, patience: Duration) -> Result<T, WireError> {
        let line = timeout(patience, self.line()).await.map_err(|_| WireError::Late(patience))??;
        Ok(serde_json::from_slice(&line)?)
    }

    async fn line(&mut self) -> Result<Vec<u8>, WireError> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.read.iter().skip(searched).position(|byte| *byte == b'\n') {
                let rest = self.read.split_off(searched + end + 1);
                return Ok(std::mem::replace(&mut self.read, rest));
            }
            searched = self.read.len();
            if searched > LONGEST {
                return Err(WireError::TooLong);
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(WireError::Closed);
            }
        }
    }
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Wire, Wire) {
        let (one, two) = UnixStream::pair().unwrap();
        (Wire::new(one), Wire::new(two))
    }

    #[tokio::test]
    async fn messages_come_one_by_one_however_they_are_cut() {
        let (mut one, mut two) = pair();
        let ask = Ask { protocol: PROTOCOL, ask: Wish::TakeOver };
        let mut text = serde_json::to_vec(&ask).unwrap();
        assert_eq!(text, br#"{"protocol":1,"ask":"take-over"}"#);
        text.extend_from_slice(b"\n\"send\"\n{\"failed\":{\"exit\":78,\"text\":\"bad\",\"new\":1}}\n");
        tokio::spawn(async move {
            for byte in text {
                one.stream.write_all(&[byte]).await.unwrap();
            }
        });
        assert_eq!(two.receive::<Ask>(PROMPT).await.unwrap(), ask);
        assert_eq!(two.receive::<Word>(PROMPT).await.unwrap(), Word::Send);
        let failed = two.receive::<Word>(PROMPT).await.unwrap();
        assert_eq!(failed, Word::Failed(Fault::configuration("bad")), "what is not known is ignored");
        assert!(matches!(two.receive::<Word>(PROMPT).await, Err(WireError::Closed)));
    }

    #[tokio::test]
    async fn nonsense_and_lines_without_an_end_are_refused() {
        let (mut one, mut two) = pair();
        one.stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        assert!(matches!(two.receive::<Ask>(PROMPT).await, Err(WireError::Malformed(_))));
        let endless = tokio::spawn(async move { while one.stream.write_all(&[b'x'; 8192]).await.is_ok() {} });
        assert!(matches!(two.receive::<Ask>(Duration::from_secs(60)).await, Err(WireError::TooLong)));
        drop(two);
        endless.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn silence_has_an_end() {
        let (_one, mut two) = pair();
        let error = two.receive::<Word>(PROMPT).await.unwrap_err();
        assert_eq!(error.to_string(), "no word from the other process within 10 s");
    }
}
