//! Additional fields of version 2: type, length, value (HAProxy PROXY protocol §2.2.1 to §2.2.8). The TLS fields inside
//! `PP2_TYPE_SSL` are read in `ssl`, the checksum over all of it is verified in `v2`.

use super::ProxyHeaderError::{self, Malformed};
use super::ssl::Ssl;

/// What a header of version 2 says beside the addresses.
///
/// Each type that the specification assigns comes at most once. All of it together has at most
/// [`MAX_HEADER_BYTES`](super::MAX_HEADER_BYTES).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tlvs {
    /// `PP2_TYPE_ALPN` (§2.2.1): the protocol spoken on the connection, such as `h2`.
    pub alpn: Option<Vec<u8>>,
    /// `PP2_TYPE_AUTHORITY` (§2.2.2): the host name that the client asked for, with TLS its server name. At most 255
    /// bytes, without control characters.
    pub authority: Option<String>,
    /// `PP2_TYPE_UNIQUE_ID` (§2.2.5): names the connection in the logs of all proxies. At most 128 bytes.
    pub unique_id: Option<Vec<u8>>,
    /// `PP2_TYPE_SSL` (§2.2.6): the client's TLS.
    pub ssl: Option<Ssl>,
    /// `PP2_TYPE_NETNS` (§2.2.7): name of the network namespace. At most 255 bytes, without control characters.
    pub netns: Option<String>,
    /// Whether there is a checksum (§2.2.3): in a header that was read, a right one.
    pub crc32c: bool,
    /// Types that the specification leaves to others, such as a cloud's name of its endpoint.
    pub others: Others,
}

/// Fields of unassigned types, kept as they came and well-formed. They may repeat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Others(Vec<u8>);

impl Others {
    /// Type and value of each, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &[u8])> {
        // What is in here was taken apart before.
        fields(&self.0).map_while(Result::ok).map(|(kind, value, _)| (kind, value))
    }
}

/// Type, value, and where in `bytes` the value ends, of one field after the other; padding (`PP2_TYPE_NOOP`, §2.2.4) is
/// left out. After an error there are no more.
pub(super) fn fields(bytes: &[u8]) -> impl Iterator<Item = Result<(u8, &[u8], usize), ProxyHeaderError>> {
    let mut rest = bytes;
    let mut next = move || {
        if rest.is_empty() {
            return None;
        }
        let field = first(rest);
        rest = field.map_or(&[], |(_, _, after)| after);
        let end = bytes.len() - rest.len();
        Some(field.map(|(kind, value, _)| (kind, value, end)).ok_or(Malformed("field is cut off")))
    };
    std::iter::from_fn(move || {
        loop {
            let field = next()?;
            if !matches!(field, Ok((NOOP, ..))) {
                return Some(field);
            }
        }
    })
}

/// Type and value of the first field, and what follows; `None` when it is cut off.
fn first(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let ([kind, high, low], rest) = bytes.split_first_chunk::<3>()?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
    Some((*kind, value, rest))
}

impl Tlvs {
    /// Reads what follows the addresses; of the checksum only that there is one.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, ProxyHeaderError> {
        let mut read = Self::default();
        for field in fields(bytes) {
            let (kind, value, _) = field?;
            match kind {
                ALPN => once(&mut read.alpn, value.to_vec())?,
                AUTHORITY => once(&mut read.authority, text(value)?)?,
                UNIQUE_ID if value.len() > MAX_UNIQUE_ID_BYTES => {
                    return Err(Malformed("unique id over 128 bytes"));
                }
                UNIQUE_ID => once(&mut read.unique_id, value.to_vec())?,
                SSL => once(&mut read.ssl, Ssl::read(value)?)?,
                NETNS => once(&mut read.netns, text(value)?)?,
                CRC32C => read.crc32c = true,
                _ => push(&mut read.others.0, usize::MAX, kind, value),
            }
        }
        Ok(read)
    }

    /// Appends the fields, the checksum's place excepted, as long as the header has at most `most` bytes; one that would
    /// make it longer is left out.
    pub(super) fn write(&self, header: &mut Vec<u8>, most: usize) {
        let ssl = self.ssl.as_ref().map(Ssl::written);
        let known = [
            (ALPN, self.alpn.as_deref()),
            (AUTHORITY, self.authority.as_deref().map(str::as_bytes)),
            (UNIQUE_ID, self.unique_id.as_deref()),
            (SSL, ssl.as_deref()),
            (NETNS, self.netns.as_deref().map(str::as_bytes)),
        ];
        let known = known.into_iter().filter_map(|(kind, value)| Some((kind, value?)));
        for (kind, value) in known.chain(self.others.iter()) {
            push(header, most, kind, value);
        }
    }
}

/// Sets what may be there once.
pub(super) fn once<T>(place: &mut Option<T>, value: T) -> Result<(), ProxyHeaderError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Malformed("field comes twice")),
    }
}

/// A value that is text. It ends up in logs and in front of people.
pub(super) fn text(value: &[u8]) -> Result<String, ProxyHeaderError> {
    let text = str::from_utf8(value).map_err(|_| Malformed("text is not UTF-8"))?;
    if text.len() > MAX_TEXT_BYTES {
        return Err(Malformed("text over 255 bytes"));
    }
    if text.contains(char::is_control) {
        return Err(Malformed("control character in text"));
    }
    Ok(text.to_owned())
}

/// Appends a field, unless `bytes` would become longer than `most`.
pub(super) fn push(bytes: &mut Vec<u8>, most: usize, kind: u8, value: &[u8]) {
    let Ok(length) = u16::try_from(value.len()) else { return };
    if bytes.len() + FIELD_BYTES + value.len() <= most {
        bytes.push(kind);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(value);
    }
}

const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
pub(super) const CRC32C: u8 = 0x03;
pub(super) const NOOP: u8 = 0x04;
const UNIQUE_ID: u8 = 0x05;
const SSL: u8 = 0x20;
const NETNS: u8 = 0x30;
/// Type and length, before the value.
pub(super) const FIELD_BYTES: usize = 3;
/// §2.2.5.
const MAX_UNIQUE_ID_BYTES: usize = 128;
/// Names of hosts and of certificates are not longer (RFC 1035 §2.3.4, RFC 5280 Appendix A.1). Bounded so that what was
/// read fits in a header again, together with what is added.
const MAX_TEXT_BYTES: usize = 255;
