//! The registry of all sockets this process listens on. A start, a reload and the takeover from a former process are one thing to it:
//! a [`Change`] is told what a configuration asks for, gives what is held already, opens what is not, and is committed or dropped.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use conf::{Bind, SocketKind};
use socket2::Socket;

use super::inherited::{self, Place, SEVERAL, Which};
use super::tcp::{self, Candidate};
use super::unix::{self, SocketFile};
use super::{BACKLOG, BindError, Bound, BoundAddress, BoundSocket, bind_error};
use crate::connection::folded;

/// What this process listens on. Clones are the same registry.
///
/// It has a descriptor of its own of every socket, so that one whose accept loop has ended can be served again; a socket is closed
/// with the last of both.
#[derive(Debug, Clone, Default)]
pub struct Sockets(Arc<Mutex<Registry>>);

#[derive(Debug, Default)]
pub(super) struct Registry {
    pub(super) groups: Vec<Group>,
    /// Whether a former process still owns what was adopted.
    pub(super) borrowed: bool,
    /// Files of adopted sockets that nobody asked for, to be removed once they are ours.
    pub(super) left: Vec<Arc<SocketFile>>,
}

/// The sockets of one bind.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) listener: Arc<str>,
    pub(super) address: BoundAddress,
    pub(super) origin: Origin,
    pub(super) sockets: Vec<Arc<Socket>>,
}

/// How a bind finds its sockets again.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    /// By the address; by the listener too when the port was left to the system.
    Tcp(Option<AnyPort>),
    /// By the file.
    Unix { file: Arc<SocketFile>, mode: u32 },
    /// By its place or its name, or by the address.
    Inherited(Place),
}

/// A bind to port 0: the `ordinal`th of its listener that asked for this address.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct AnyPort {
    pub(super) listener: Arc<str>,
    pub(super) ip: IpAddr,
    pub(super) ordinal: usize,
}

/// A new set of sockets in the making. Dropped without [`commit`](Self::commit), it closes what it opened, and nothing else happens.
#[derive(Debug)]
pub struct Change {
    registry: Sockets,
    groups: Vec<Group>,
    /// Bound, and listening only after the commit: a connection that is waiting for one of them would be lost with it.
    silent: Vec<Arc<Socket>>,
}

/// What a change came to: name of the listener and address, in the order of the binds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// Not listened on before.
    pub opened: Vec<(String, BoundAddress)>,
    /// Not listened on any more.
    pub closed: Vec<(String, BoundAddress)>,
}

impl Sockets {
    /// Begins a change. One at a time: of two, the one that is committed last decides.
    pub fn change(&self) -> Change {
        Change { registry: self.clone(), groups: Vec::new(), silent: Vec::new() }
    }

    /// Listener and address of everything held.
    pub fn addresses(&self) -> Vec<(String, BoundAddress)> {
        self.lock().groups.iter().map(Group::name).collect()
    }

    /// What this process inherited and does not hold: no bind has asked for it yet.
    pub(super) fn unasked(&self) -> Vec<Group> {
        let registry = self.lock();
        let is_held =
            |index| registry.groups.iter().any(|group| group.place().is_some_and(|held| held.index == index));
        let unasked = inherited::all().into_iter().filter(|(place, _)| !is_held(place.index));
        let group = |(place, socket): (Place, Socket)| {
            // An error means that it has no address, so that nothing can be reached there.
            let address = address(&socket).ok()?;
            let sockets = vec![Arc::new(socket)];
            Some(Group { listener: "".into(), address, origin: Origin::Inherited(place), sockets })
        };
        unasked.filter_map(group).collect()
    }

    /// Closes the registry's descriptors, at the beginning of the drain: from then on the accept loops alone keep a socket open.
    pub fn close(&self) {
        let closed = {
            let mut registry = self.lock();
            (std::mem::take(&mut registry.groups), std::mem::take(&mut registry.left))
        };
        drop(closed);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Registry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections to these are accepted by nobody, and hang.
    fn warn_of_unserved(&self, asked: &[Place]) {
        let kept = self.all(|group| group.place().is_some_and(|place| !asked.contains(place)));
        for group in kept.iter().chain(&self.unasked()) {
            if let Some(place) = group.place() {
                tracing::warn!(address = %group.address, "no listener is bound to {place}: who connects to it waits for nothing");
            }
        }
    }

    fn all(&self, wanted: impl Fn(&Group) -> bool) -> Vec<Group> {
        self.lock().groups.iter().filter(|group| wanted(group)).cloned().collect()
    }

    fn find(&self, wanted: impl Fn(&Group) -> bool) -> Option<Group> {
        self.lock().groups.iter().find(|group| wanted(group)).cloned()
    }
}

impl Change {
    /// The sockets of one bind of a listener, at least `sockets` (at least one). The name has to be the listener's alone in this process.
    ///
    /// What is held for the same address, or was inherited for it, is given, whatever form the bind has; where the port is left to the
    /// system, what the listener had at the same place. TCP: each socket has a queue of its own (`SO_REUSEPORT`), so that every thread has one;
    /// Unix and inherited sockets: clones of one. A port that another process listens on is an error, even if that process
    /// uses `SO_REUSEPORT` too. A change of a Unix socket's mode takes effect with the commit.
    ///
    /// # Errors
    /// See [`BindError`]. The change can go on, as if this bind had not been asked for.
    pub async fn bind(&mut self, listener: &str, bind: &Bind, sockets: usize) -> Result<Bound, BindError> {
        let sockets = sockets.max(1);
        let (group, held) = match bind {
            Bind::Host { .. } | Bind::Address(_) => {
                let candidates = tcp::candidates_for(bind).await?;
                self.tcp(listener, &candidates, sockets)?
            }
            Bind::Socket { path, mode } => self.unix(listener, path, mode.unwrap_or(DEFAULT_MODE))?,
            Bind::Fd { index, kind } => self.inherited(listener, Which::Index(*index), *kind)?,
            Bind::FdName { name, kind } => self.inherited(listener, Which::Name(name), *kind)?,
        };
        let bound = group.bound(sockets, held).map_err(|error| bind_error(&group.address, error))?;
        self.groups.push(group);
        Ok(bound)
    }

    /// Makes this what the process listens on, and closes the registry's descriptors of everything that was not asked for.
    pub fn commit(mut self) -> Changed {
        for socket in self.silent.drain(..) {
            // It is bound already, so there is nothing that could speak against it; the others of its group go on.
            if let Err(error) = socket.listen(BACKLOG) {
                tracing::warn!(%error, "a socket cannot listen");
            }
        }
        let groups = std::mem::take(&mut self.groups);
        let asked: Vec<Place> = groups.iter().filter_map(Group::place).cloned().collect();
        let (changed, closed) = self.registry.lock().replace(groups);
        // Outside the lock: a Unix socket's file is removed here.
        drop(closed);
        self.registry.warn_of_unserved(&asked);
        changed
    }

    fn tcp(
        &mut self,
        listener: &str,
        candidates: &[Candidate],
        sockets: usize,
    ) -> Result<(Group, bool), BindError> {
        for candidate in candidates {
            let any_port = self.any_port(listener, candidate.address);
            if let Some(held) = self.held(candidate.address, any_port.as_ref()) {
                let group = match held.origin {
                    Origin::Tcp(_) => Group { origin: Origin::Tcp(any_port), ..held },
                    Origin::Inherited(_) | Origin::Unix { .. } => held,
                };
                return Ok((self.grown(Group { listener: listener.into(), ..group }, sockets), true));
            }
        }
        let is_meant = |group: &Group| {
            let is_at = |candidate: &Candidate| group.address == BoundAddress::Tcp(folded(candidate.address));
            candidates.iter().any(is_at)
        };
        if let Some(group) = self.handed_over(listener, is_meant) {
            return Ok((group, false));
        }
        let mut first = None;
        let mut lacks_v6 = false;
        for candidate in candidates.iter() {
            if candidate.without_v6 && !lacks_v6 {
                continue;
            }
            let address = candidate.address;
            if let Some(other) = self.groups.iter().find(|group| group.competes_with(address)) {
                first = first.or_else(|| Some(twice(address, other)));
                continue;
            }
            match self.open(listener, address, sockets) {
                Ok(group) => return Ok((group, false)),
                Err(error) => {
                    lacks_v6 = tcp::is_missing_family(&error);
                    if lacks_v6 {
                        tracing::debug!(%address, "this system has no IPv6");
                    }
                    first = first.or_else(|| Some(tcp::error(address, error)));
                }
            }
        }
        // Names without an address are an error of their own: there is a candidate, and it has failed.
        Err(first.unwrap_or_else(|| bind_error(listener, io::ErrorKind::NotFound.into())))
    }

    /// The held sockets that a bind to this address means, unless they compete with another bind of this change: a start would refuse
    /// them, so that is refused here too.
    fn held(&self, address: SocketAddr, any_port: Option<&AnyPort>) -> Option<Group> {
        self.registry.find(|group| {
            let BoundAddress::Tcp(held) = group.address else { return false };
            let is_meant = match (&group.origin, any_port) {
                (Origin::Tcp(Some(held)), Some(asked)) => held == asked,
                (Origin::Tcp(_) | Origin::Inherited(_), None) => held == folded(address),
                (Origin::Tcp(None) | Origin::Unix { .. } | Origin::Inherited(_), _) => false,
            };
            is_meant && !self.groups.iter().any(|other| other.competes_with(held))
        })
    }

    fn any_port(&self, listener: &str, address: SocketAddr) -> Option<AnyPort> {
        if address.port() != 0 {
            return None;
        }
        let ip = address.ip();
        let before = |group: &&Group| matches!(&group.origin, Origin::Tcp(Some(other)) if *other.listener == *listener && other.ip == ip);
        Some(AnyPort { listener: listener.into(), ip, ordinal: self.groups.iter().filter(before).count() })
    }

    /// More sockets for a group, where more are asked for. Where the system refuses, several share one.
    fn grown(&mut self, mut group: Group, sockets: usize) -> Group {
        let (BoundAddress::Tcp(address), Origin::Tcp(_)) = (&group.address, &group.origin) else {
            return group;
        };
        let address = *address;
        while group.sockets.len() < sockets {
            match tcp::join(address) {
                Ok(socket) => {
                    let socket = Arc::new(socket);
                    self.silent.push(socket.clone());
                    group.sockets.push(socket);
                }
                Err(error) => {
                    tracing::info!(%address, %error, "no queue of its own for every thread");
                    break;
                }
            }
        }
        group
    }

    fn open(&mut self, listener: &str, address: SocketAddr, sockets: usize) -> io::Result<Group> {
        // What is held competes, as when a listener moves from one address of the machine to all of them: only those that share the
        // port may join then, and until the commit connections go where they went.
        let (actual, opened): (_, Vec<_>) =
            if self.registry.find(|group| group.competes_with(address)).is_some() {
                let opened: io::Result<Vec<_>> =
                    (0..sockets).map(|_| tcp::join(address).map(Arc::new)).collect();
                let opened = opened?;
                self.silent.extend(opened.iter().cloned());
                (address, opened)
            } else {
                let (actual, opened) = tcp::open(address, sockets)?;
                (actual, opened.into_iter().map(Arc::new).collect())
            };
        Ok(Group {
            listener: listener.into(),
            address: BoundAddress::Tcp(folded(actual)),
            origin: Origin::Tcp(self.any_port(listener, address)),
            sockets: opened,
        })
    }

    /// What was inherited and is held by nobody.
    fn handed_over(&self, listener: &str, is_meant: impl Fn(&Group) -> bool) -> Option<Group> {
        let is_asked_for = |group: &Group| self.groups.iter().any(|other| other.place() == group.place());
        let mut unasked = self.registry.unasked().into_iter();
        let group = unasked.find(|group| is_meant(group) && !is_asked_for(group))?;
        Some(Group { listener: listener.into(), ..group })
    }

    fn unix(&mut self, listener: &str, path: &Path, mode: u32) -> Result<(Group, bool), BindError> {
        let is_at = |group: &Group| match &group.origin {
            Origin::Unix { file, .. } => file.is_at(path),
            Origin::Inherited(_) => matches!(&group.address, BoundAddress::Unix(Some(held)) if held == path),
            Origin::Tcp(_) => false,
        };
        if let Some(other) = self.groups.iter().find(|group| is_at(group)) {
            return Err(twice(format_args!("unix:{}", path.display()), other));
        }
        if let Some(mut held) = self.registry.find(is_at) {
            if let Origin::Unix { mode: held, .. } = &mut held.origin {
                *held = mode;
            }
            return Ok((Group { listener: listener.into(), ..held }, true));
        }
        if let Some(group) = self.handed_over(listener, is_at) {
            return Ok((group, false));
        }
        let (socket, file) = unix::listen(path, mode)?;
        let group = Group {
            listener: listener.into(),
            address: BoundAddress::Unix(Some(file.path().to_owned())),
            origin: Origin::Unix { file: Arc::new(file), mode },
            sockets: vec![Arc::new(socket)],
        };
        Ok((group, false))
    }

    fn inherited(
        &mut self,
        listener: &str,
        which: Which<'_>,
        kind: SocketKind,
    ) -> Result<(Group, bool), BindError> {
        let is_it = |group: &Group| group.place().is_some_and(|place| which.is(place));
        if let Some(other) = self.groups.iter().find(|group| is_it(group)) {
            return Err(twice(which, other));
        }
        let mut held = self.registry.all(is_it).into_iter();
        if let Some(group) = held.next() {
            if held.next().is_some() {
                return Err(which.error(SEVERAL.to_owned()));
            }
            let fits = matches!(
                (&group.address, kind),
                (BoundAddress::Tcp(_), SocketKind::Tcp) | (BoundAddress::Unix(_), SocketKind::Unix)
            );
            if !fits {
                return Err(which.error(format!("it is {}, see `kind`", group.address)));
            }
            return Ok((Group { listener: listener.into(), ..group }, true));
        }
        let place = which.place()?;
        let socket = inherited::socket(place.index, kind)?;
        let group = Group {
            listener: listener.into(),
            address: address(&socket).map_err(|error| bind_error(which, error))?,
            origin: Origin::Inherited(place),
            sockets: vec![Arc::new(socket)],
        };
        Ok((group, false))
    }
}

impl Registry {
    /// Puts `groups` in the place of what is held, and returns what is not asked for any more.
    fn replace(&mut self, groups: Vec<Group>) -> (Changed, Vec<Group>) {
        let before = std::mem::take(&mut self.groups);
        for group in &groups {
            let held = before.iter().find(|held| held.is_same(group)).map(|held| &held.origin);
            if let (Origin::Unix { file, mode }, Some(Origin::Unix { mode: held, .. })) =
                (&group.origin, held)
                && mode != held
                && let Err(error) = file.set_mode(*mode)
            {
                tracing::warn!(address = %group.address, %error, "the mode of the socket cannot be changed");
            }
        }
        let not_in = |some: &[Group], group: &Group| !some.iter().any(|other| other.is_same(group));
        let opened = groups.iter().filter(|group| not_in(&before, group)).map(Group::name).collect();
        // Inherited ones stay open in any case; held, they can be handed on.
        let (mut closed, mut kept) = (Vec::new(), Vec::new());
        for group in before.into_iter().filter(|group| not_in(&groups, group)) {
            match &group.origin {
                Origin::Inherited(_) => kept.push(group),
                Origin::Tcp(_) => closed.push(group),
                Origin::Unix { file, .. } => {
                    if self.borrowed {
                        self.left.push(file.clone());
                    }
                    closed.push(group);
                }
            }
        }
        self.groups = groups;
        self.groups.extend(kept);
        (Changed { opened, closed: closed.iter().map(Group::name).collect() }, closed)
    }
}

impl Group {
    fn name(&self) -> (String, BoundAddress) {
        (self.listener.to_string(), self.address.clone())
    }

    /// Of one that was inherited.
    fn place(&self) -> Option<&Place> {
        match &self.origin {
            Origin::Inherited(place) => Some(place),
            Origin::Tcp(_) | Origin::Unix { .. } => None,
        }
    }

    /// Whether these are the same sockets.
    fn is_same(&self, other: &Self) -> bool {
        matches!((self.sockets.first(), other.sockets.first()), (Some(one), Some(two)) if Arc::ptr_eq(one, two))
    }

    fn competes_with(&self, address: SocketAddr) -> bool {
        matches!(self.address, BoundAddress::Tcp(held) if tcp::overlap(held, address))
    }

    /// Descriptors for those who accept: all sockets, and the same ones again until there are `count`.
    fn bound(&self, count: usize, held: bool) -> io::Result<Bound> {
        let all = self.sockets.iter().cycle().take(self.sockets.len().max(count));
        let file = match &self.origin {
            Origin::Unix { file, .. } => Some(file),
            Origin::Tcp(_) | Origin::Inherited(_) => None,
        };
        let sockets = all.map(|socket| match self.address {
            BoundAddress::Tcp(_) => BoundSocket::tcp(socket),
            BoundAddress::Unix(_) => BoundSocket::unix(socket, file.cloned()),
        });
        Ok(Bound { address: self.address.clone(), sockets: sockets.collect::<io::Result<_>>()?, held })
    }
}

/// Where a socket of either kind listens.
pub(super) fn address(socket: &Socket) -> io::Result<BoundAddress> {
    let address = socket.local_addr()?;
    Ok(match address.as_socket() {
        Some(tcp) => BoundAddress::Tcp(folded(tcp)),
        None => BoundAddress::Unix(address.as_pathname().map(Path::to_owned)),
    })
}

fn twice(address: impl std::fmt::Display, other: &Group) -> BindError {
    BindError::Twice {
        address: address.to_string(),
        listener: other.listener.to_string(),
        other: other.address.to_string(),
    }
}

/// A Unix socket nobody but the owner may open.
const DEFAULT_MODE: u32 = 0o600;

#[cfg(test)]
mod tests;
