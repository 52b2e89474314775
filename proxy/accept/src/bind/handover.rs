//! Sockets on their way from a process to the one that replaces it. How they travel is not known here: a [`Passed`] is a description
//! and a descriptor.
//!
//! While both live, a Unix socket's file belongs to one of them: to the old one until [`Sockets::release`], to the new one from
//! [`Sockets::own`] on. So whichever fails, the file stays with a process that serves it.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use socket2::{Socket, Type};

use super::BoundAddress;
use super::inherited::Place;
use super::sockets::{AnyPort, Group, Origin, Sockets, address};
use super::unix::SocketFile;

/// A socket for another process.
#[derive(Debug)]
pub struct Passed {
    /// What it is.
    pub label: Label,
    /// The socket.
    pub descriptor: OwnedFd,
}

/// What the next process has to know of a socket beside the socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    listener: Arc<str>,
    origin: LabelOrigin,
    /// Sockets of one bind have the same number.
    group: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LabelOrigin {
    Tcp { any_port: Option<AnyPort> },
    Unix { path: PathBuf, mode: u32, device: u64, inode: u64 },
    Inherited(Place),
}

/// Why sockets of a former process are not taken.
#[derive(Debug, thiserror::Error)]
#[error("a socket of listener {listener} cannot be taken over: {problem}")]
pub struct AdoptError {
    listener: Arc<str>,
    problem: String,
}

impl Sockets {
    /// Everything held, and what was inherited and not asked for: it cannot be had again.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn offer(&self) -> std::io::Result<Vec<Passed>> {
        let mut groups = self.lock().groups.clone();
        let mut unasked = self.unasked();
        groups.append(&mut unasked);
        let mut all = Vec::new();
        for (number, group) in groups.iter().enumerate() {
            let label = Label {
                listener: group.listener.clone(),
                origin: LabelOrigin::of(&group.origin),
                group: number,
            };
            for socket in &group.sockets {
                all.push(Passed { label: label.clone(), descriptor: socket.try_clone()?.into() });
            }
        }
        Ok(all)
    }

    /// Holds the sockets of a former process from now on; before the first bind. They belong to that process until [`own`](Self::own).
    ///
    /// # Errors
    /// When one is not what its label says. Nothing is held then.
    pub fn adopt(&self, passed: Vec<Passed>) -> Result<(), AdoptError> {
        let mut groups: Vec<(usize, Group)> = Vec::new();
        for Passed { label, descriptor } in passed {
            let failed = |problem: String| AdoptError { listener: label.listener.clone(), problem };
            let socket = Arc::new(Socket::from(descriptor));
            let address = checked(&socket, &label.origin).map_err(failed)?;
            match groups.iter_mut().find(|(number, _)| *number == label.group) {
                Some((_, group)) if group.address == address => group.sockets.push(socket),
                Some(_) => {
                    return Err(failed("it has another address than those with the same number".into()));
                }
                None => {
                    let (listener, origin) = (label.listener, label.origin.into_origin());
                    // The name it was bound by may be relative to where that was.
                    let address = match &origin {
                        Origin::Unix { file, .. } => BoundAddress::Unix(Some(file.path().to_owned())),
                        Origin::Tcp(_) | Origin::Inherited(_) => address,
                    };
                    groups.push((label.group, Group { listener, address, origin, sockets: vec![socket] }));
                }
            }
        }
        let mut registry = self.lock();
        registry.borrowed = true;
        registry.groups.extend(groups.into_iter().map(|(_, group)| group));
        Ok(())
    }

    /// What was adopted is ours: the former process has let go of it. Files of Unix sockets that nobody asked for are removed.
    pub fn own(&self) {
        let left = {
            let mut registry = self.lock();
            registry.borrowed = false;
            registry.set_ours(true);
            std::mem::take(&mut registry.left)
        };
        for file in &left {
            file.set_ours(true);
        }
    }

    /// Another process has everything now: the files of Unix sockets stay when their sockets are closed.
    pub fn release(&self) {
        self.lock().set_ours(false);
    }
}

impl super::sockets::Registry {
    fn set_ours(&self, ours: bool) {
        for group in &self.groups {
            if let Origin::Unix { file, .. } = &group.origin {
                file.set_ours(ours);
            }
        }
    }
}

impl LabelOrigin {
    fn of(origin: &Origin) -> Self {
        match origin {
            Origin::Tcp(any_port) => Self::Tcp { any_port: any_port.clone() },
            Origin::Unix { file, mode } => {
                let (device, inode) = file.device_and_inode();
                Self::Unix { path: file.path().to_owned(), mode: *mode, device, inode }
            }
            Origin::Inherited(place) => Self::Inherited(place.clone()),
        }
    }

    fn into_origin(self) -> Origin {
        match self {
            Self::Tcp { any_port } => Origin::Tcp(any_port),
            Self::Unix { path, mode, device, inode } => {
                Origin::Unix { file: Arc::new(SocketFile::of_another(path, (device, inode))), mode }
            }
            Self::Inherited(place) => Origin::Inherited(place),
        }
    }
}

/// Where it listens, if it is a listening socket of the kind that was said.
fn checked(socket: &Socket, origin: &LabelOrigin) -> Result<BoundAddress, String> {
    let system = |error: std::io::Error| error.to_string();
    if socket.r#type().map_err(system)? != Type::STREAM || !socket.is_listener().map_err(system)? {
        return Err("it does not listen".into());
    }
    socket.set_nonblocking(true).map_err(system)?;
    let address = address(socket).map_err(system)?;
    match (origin, &address) {
        (LabelOrigin::Tcp { .. }, BoundAddress::Tcp(_))
        | (LabelOrigin::Unix { .. }, BoundAddress::Unix(_))
        | (LabelOrigin::Inherited(_), _) => Ok(address),
        (LabelOrigin::Tcp { .. } | LabelOrigin::Unix { .. }, _) => Err(format!("it is {address}")),
    }
}
