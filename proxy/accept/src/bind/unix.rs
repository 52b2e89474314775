//! Binding a Unix socket at its path, with no moment in which somebody could connect under the wrong mode.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use super::{BACKLOG, BindError, bind_error};

/// The file of a bound socket; removed when dropped, unless another socket has taken the path by then.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device_and_inode: (u64, u64),
}

/// A listening socket at `path` with permission bits `mode`. A socket nobody listens on is replaced; one that answers, or
/// a file that is no socket, is an error.
pub(super) fn listen(path: &Path, mode: u32) -> Result<(UnixListener, SocketFile), BindError> {
    let name = path.display();
    if path.as_os_str().as_bytes().len() > MAX_PATH_BYTES {
        return Err(BindError::PathTooLong { path: path.to_owned() });
    }
    refuse_if_taken(path)?;
    open(path, mode).map_err(|error| bind_error(format_args!("unix:{name}"), error))
}

impl SocketFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours =
            fs::symlink_metadata(&self.path).is_ok_and(|file| identity(&file) == self.device_and_inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

fn open(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    // Stale: whoever listened on it is gone.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // Never renamed afterwards: the other end sees the name of the moment of `bind`, and a proxy that compares it with
    // where it meant to connect, as Pingora does, would not use a connection twice.
    socket.bind(&SockAddr::unix(path)?)?;
    let device_and_inode = identity(&fs::symlink_metadata(path)?);
    let file = SocketFile { path: path.to_owned(), device_and_inode };
    // Nobody can connect before listen, so the mode is in force from the first moment.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    Ok((OwnedFd::from(socket).into(), file))
}

/// Refuses a path that holds something we must not replace.
fn refuse_if_taken(path: &Path) -> Result<(), BindError> {
    let name = || format!("unix:{}", path.display());
    match fs::symlink_metadata(path) {
        Ok(file) if file.file_type().is_socket() => {}
        Ok(_) => return Err(BindError::NotASocket { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(bind_error(name(), error)),
    }
    match connect(path) {
        // A full queue is somebody's queue.
        Ok(()) => Err(BindError::InUse { address: name() }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(BindError::InUse { address: name() }),
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
            Ok(())
        }
        Err(error) => Err(bind_error(name(), error)),
    }
}

fn connect(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)
}

fn identity(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// `sun_path` without its final NUL.
const MAX_PATH_BYTES: usize = 107;
