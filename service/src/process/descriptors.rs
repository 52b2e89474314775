//! Descriptors on their way to another process: `SCM_RIGHTS`, unix(7). Each message carries one byte and a number of descriptors, so
//! that a reader never reads past one.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Descriptors in a message. Linux allows 253 (`SCM_MAX_FD`).
const AT_ONCE: usize = 64;

/// Sends all of them.
///
/// # Errors
/// What sendmsg(2) says; `ETOOMANYREFS` when more are on their way than this process may have open.
pub(super) async fn send(stream: &UnixStream, descriptors: &[OwnedFd]) -> io::Result<()> {
    for some in descriptors.chunks(AT_ONCE) {
        let borrowed: Vec<BorrowedFd<'_>> = some.iter().map(OwnedFd::as_fd).collect();
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            Ok(sendmsg(stream, &[IoSlice::new(b"d")], &mut control, SendFlags::NOSIGNAL)?)
        };
        stream.async_io(Interest::WRITABLE, send).await?;
    }
    Ok(())
}

/// Receives `count`, closed on exec. Nothing else may have been sent before or between them.
///
/// # Errors
/// What recvmsg(2) says; when fewer or more come; when the process may not have so many.
pub(super) async fn receive(stream: &UnixStream, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut all = Vec::new();
    while all.len() < count {
        let receive = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut byte = [0];
            let message =
                recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
            let mut some = Vec::new();
            for ancillary in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = ancillary {
                    some.extend(rights);
                }
            }
            Ok((message.bytes, message.flags.contains(ReturnFlags::CTRUNC), some))
        };
        let (bytes, truncated, some) = stream.async_io(Interest::READABLE, receive).await?;
        if bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if truncated {
            return Err(io::Error::other("not all descriptors arrived: see RLIMIT_NOFILE"));
        }
        if some.is_empty() {
            return Err(io::Error::other("a message without descriptors"));
        }
        all.extend(some);
    }
    if all.len() > count { Err(io::Error::other("more descriptors than were announced")) } else { Ok(all) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Seek as _, Write as _};

    use super::*;

    fn numbered(count: usize) -> Vec<OwnedFd> {
        let file = |number: usize| {
            let mut file = tempfile::tempfile().unwrap();
            write!(file, "{number}").unwrap();
            file.rewind().unwrap();
            OwnedFd::from(file)
        };
        (0..count).map(file).collect()
    }

    async fn check(count: usize) {
        let (one, two) = UnixStream::pair().unwrap();
        let sent = numbered(count);
        let (sent, received) = tokio::join!(send(&one, &sent), receive(&two, count));
        sent.unwrap();
        for (number, descriptor) in received.unwrap().into_iter().enumerate() {
            let mut text = String::new();
            File::from(descriptor).read_to_string(&mut text).unwrap();
            assert_eq!(text, number.to_string());
        }
    }

    #[tokio::test]
    async fn any_number_arrives_in_order() {
        for count in [0, 1, AT_ONCE, AT_ONCE + 1, 3 * AT_ONCE + 5] {
            check(count).await;
        }
    }

    #[tokio::test]
    async fn fewer_more_and_other_things_are_errors() {
        let (one, two) = UnixStream::pair().unwrap();
        send(&one, &numbered(2)).await.unwrap();
        assert!(receive(&two, 1).await.is_err(), "more");
        send(&one, &numbered(1)).await.unwrap();
        one.try_write(b"x").unwrap();
        assert!(receive(&two, 2).await.is_err(), "a byte alone");
        send(&one, &numbered(1)).await.unwrap();
        drop(one);
        assert_eq!(receive(&two, 2).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
