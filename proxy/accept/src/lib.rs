#![doc = include_str!("../README.md")]

pub mod acceptor;
mod alarm;
pub mod bind;
pub mod certificates;
pub mod connection;
pub mod descriptors;
pub mod exposition;
pub mod forwarded;
pub mod http2;
pub mod limits;
mod named;
pub mod pace;
pub mod process;
pub mod proxy_protocol;
pub mod reloads;
pub mod resolver;
pub mod serve;
pub mod stream;
mod tally;

#[cfg(test)]
mod fixtures;

pub use acceptor::{
    Acceptor, HeaderBounds, ProxyPolicy, REFUSAL_REASONS, Refused, Tickets, server_config, server_config_for,
};
pub use bind::{
    AdoptError, BindError, Bound, BoundAddress, BoundSocket, Change, Changed, Label, Listener, Passed,
    Sockets,
};
pub use certificates::Expiries;
pub use connection::{ClientAddress, Connection, Remote, TlsFacts};
pub use exposition::Exposition;
pub use forwarded::client_address;
pub use limits::{ConnectionLimits, Permit, TooMany};
pub use proxy_protocol::{ProxyHeader, ProxyHeaderError};
pub use reloads::Reloads;
pub use resolver::Resolver;
pub use serve::{Draining, Terms, accept, serve};
pub use stream::{Io, Replay, Stream};
pub use tally::Counts;
