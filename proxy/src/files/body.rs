//! The body of a file's answer: in memory when small, else read piece by piece while it is sent.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::disk::{self, Wait};
use super::range::ByteRange;

/// What follows the header.
#[derive(Debug)]
pub enum FileBody {
    /// Nothing.
    Empty,
    /// All of it.
    Bytes(Bytes),
    /// To be read as it is sent.
    File(FileStream),
}

impl FileBody {
    /// Whether there is no next chunk.
    pub fn is_at_end(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::File(stream) => stream.pieces.is_empty(),
        }
    }

    /// The next part of the body, never empty; `None` at its end.
    ///
    /// # Errors
    /// The file cannot be read, or has become shorter than the header said: the answer is broken, close the connection.
    pub async fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        match self {
            Self::File(stream) => stream.next_chunk().await,
            Self::Empty => Ok(None),
            Self::Bytes(_) => match std::mem::replace(self, Self::Empty) {
                Self::Bytes(bytes) if !bytes.is_empty() => Ok(Some(bytes)),
                _ => Ok(None),
            },
        }
    }
}

/// Pieces of one open file, and text between them.
#[derive(Debug)]
pub struct FileStream {
    file: Arc<File>,
    pieces: VecDeque<Piece>,
}

/// A part of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// From memory.
    Text(Bytes),
    /// From the file.
    Range(ByteRange),
}

impl FileStream {
    pub(crate) fn new(file: File, pieces: impl Into<VecDeque<Piece>>) -> Self {
        Self { file: Arc::new(file), pieces: pieces.into() }
    }

    /// As [`FileBody::next_chunk`].
    pub(crate) async fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        match self.pieces.pop_front() {
            None => Ok(None),
            Some(Piece::Text(text)) => Ok(Some(text)),
            Some(Piece::Range(range)) => {
                let length = range.length().min(CHUNK_BYTES as u64);
                let bytes = read(&self.file, range.first, length).await?;
                if length < range.length() {
                    self.pieces.push_front(Piece::Range(ByteRange { first: range.first + length, ..range }));
                }
                Ok(Some(bytes))
            }
        }
    }
}

/// `length` bytes from `offset` on: at once when the kernel has them in memory, else on a thread that may wait.
async fn read(file: &Arc<File>, offset: u64, length: u64) -> io::Result<Bytes> {
    let mut buffer = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    match disk::read_exact_at(file, &mut buffer, offset, Wait::Never) {
        Ok(()) => return Ok(buffer.into()),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
        Err(_) => {}
    }
    let file = Arc::clone(file);
    disk::off_thread(move || {
        disk::read_exact_at(&file, &mut buffer, offset, Wait::Allowed)?;
        Ok(buffer.into())
    })
    .await
}

/// One read of the disk and one write to the connection; larger ones only cost memory for every slow client.
pub(crate) const CHUNK_BYTES: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    async fn collect(mut body: FileBody) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        let mut ended = body.is_at_end();
        while let Some(chunk) = body.next_chunk().await? {
            assert!(!chunk.is_empty() && chunk.len() <= CHUNK_BYTES);
            all.extend_from_slice(&chunk);
            ended = body.is_at_end();
        }
        assert!(ended && body.is_at_end());
        assert!(body.next_chunk().await?.is_none());
        Ok(all)
    }

    fn file_of(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(content).expect("room on the disk");
        file
    }

    #[tokio::test]
    async fn a_body_in_memory_comes_in_one_chunk() {
        assert_eq!(collect(FileBody::Empty).await.unwrap(), b"");
        assert_eq!(collect(FileBody::Bytes(Bytes::new())).await.unwrap(), b"");
        assert_eq!(collect(FileBody::Bytes(Bytes::from_static(b"abc"))).await.unwrap(), b"abc");
    }

    #[tokio::test]
    async fn pieces_come_in_order_and_in_bounded_chunks() {
        let content: Vec<u8> =
            (0..CHUNK_BYTES * 2 + 5).map(|index| u8::try_from(index % 251).unwrap()).collect();
        let last = content.len() as u64 - 1;
        let pieces = [
            Piece::Text(Bytes::from_static(b"<")),
            Piece::Range(ByteRange { first: 0, last }),
            Piece::Text(Bytes::from_static(b"|")),
            Piece::Range(ByteRange { first: 7, last: 9 }),
        ];
        let expected = [b"<", &content[..], b"|", &content[7..10]].concat();
        let body = FileBody::File(FileStream::new(file_of(&content), pieces));
        assert!(collect(body).await.unwrap() == expected);
    }

    #[tokio::test]
    async fn a_file_that_shrank_is_an_error() {
        let file = file_of(b"0123456789");
        let writer = file.try_clone().unwrap();
        let mut body = FileBody::File(FileStream::new(file, [Piece::Range(ByteRange { first: 0, last: 9 })]));
        writer.set_len(3).unwrap();
        assert_eq!(body.next_chunk().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
