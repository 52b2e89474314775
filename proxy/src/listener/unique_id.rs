//! The name of a client's connection in the logs of every proxy on its way (HAProxy PROXY protocol §2.2.5).

use std::borrow::Cow;
use std::fmt;

use accept::Connection;

/// What the PROXY header called the connection; else a name of our own, which no other connection gets, not even in
/// another run of the program.
#[derive(Debug, Clone)]
pub(crate) struct UniqueId<'a>(Cow<'a, [u8]>);

impl<'a> UniqueId<'a> {
    /// The name of a connection. `run` is a random number.
    pub(super) fn of(connection: &'a Connection, run: u64) -> Self {
        let given = connection.proxy_header.as_ref().and_then(|header| header.tlvs.unique_id.as_deref());
        Self(match given.filter(|given| !given.is_empty()) {
            Some(given) => Cow::Borrowed(given),
            None => Cow::Owned(format!("{run:016x}-{:x}", connection.id).into_bytes()),
        })
    }

    /// As it is written in a PROXY header: at most 128 bytes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for UniqueId<'_> {
    /// As it is when it is ASCII that can be printed, else in hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match str::from_utf8(&self.0) {
            Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') => f.write_str(text),
            Ok(_) | Err(_) => {
                f.write_str("0x")?;
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use accept::Remote;
    use accept::proxy_protocol::{Command, ProxyHeader, Tlvs};

    use super::*;

    fn shown(given: Option<&[u8]>) -> String {
        let header = |given: &[u8]| ProxyHeader {
            version: conf::ProxyVersion::V2,
            command: Command::Proxy,
            source: None,
            destination: None,
            tlvs: Tlvs { unique_id: Some(given.to_vec()), ..Tlvs::default() },
        };
        let connection = Connection {
            id: 0xab,
            listener: "test".into(),
            remote: Remote::Unix,
            local: None,
            proxy_header: given.map(header).map(Box::new),
            tls: None,
        };
        let id = UniqueId::of(&connection, 0x12);
        assert!(given.is_none_or(|given| given.is_empty() || given == id.as_bytes()));
        id.to_string()
    }

    #[test]
    fn the_name_given_in_front_is_kept() {
        assert_eq!(shown(None), "0000000000000012-ab");
        assert_eq!(shown(Some(b"7F000001:B1C2_7F000001:01BB_65")), "7F000001:B1C2_7F000001:01BB_65");
        assert_eq!(shown(Some(b"a\nb")), "0x610a62");
        assert_eq!(shown(Some(b"\xff\x01")), "0xff01");
        assert_eq!(shown(Some(b"")), shown(None), "nothing is no name");
    }
}
