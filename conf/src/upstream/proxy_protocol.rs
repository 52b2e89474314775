//! The PROXY header towards an upstream: which version, and what version 2 says beside the addresses.

use crate::reader::{Item, Section};

/// Version of the PROXY header to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyVersion {
    /// Text, HAProxy PROXY protocol §2.1.
    V1,
    /// Binary, HAProxy PROXY protocol §2.2.
    V2,
}

/// An additional field of version 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyTlv {
    /// The name of the client's connection, HAProxy PROXY protocol §2.2.5.
    UniqueId,
    /// The host name that the client asked for in TLS, §2.2.2.
    Authority,
    /// Version and cipher of the client's TLS and the state of its certificate, §2.2.6.
    Ssl,
    /// A checksum over the header, §2.2.3.
    Crc32c,
}

impl ProxyTlv {
    /// What is written when nothing is said. A checksum adds nothing to TCP's.
    pub const DEFAULT: [Self; 3] = [Self::UniqueId, Self::Authority, Self::Ssl];
}

/// `proxy_protocol` and `proxy_tlvs`.
pub(super) fn read(section: &mut Section<'_>) -> Option<(Option<ProxyVersion>, Vec<ProxyTlv>)> {
    let version = section.take("proxy_protocol").map_or(Some(None), |item| read_version(&item));
    let tlvs = section.take("proxy_tlvs");
    let listed = tlvs.as_ref().map_or(Some(ProxyTlv::DEFAULT.to_vec()), read_tlvs);
    let (version, listed) = (version?, listed?);
    if version == Some(ProxyVersion::V2) {
        return Some((version, listed));
    }
    if let Some(item) = tlvs {
        item.warn("has no effect: only version 2 has additional fields, write proxy_protocol: v2");
    }
    Some((version, Vec::new()))
}

/// `off` (also as the truth value it is in older YAML), `v1` or `v2`.
fn read_version(item: &Item<'_>) -> Option<Option<ProxyVersion>> {
    match item.as_truth() {
        Some(false) => Some(None),
        Some(true) => {
            item.error("say which version to write: v1 or v2");
            None
        }
        None => item.choice(&PROXY_VERSIONS),
    }
}

fn read_tlvs(item: &Item<'_>) -> Option<Vec<ProxyTlv>> {
    let mut tlvs = Vec::new();
    let mut is_faulty = false;
    for item in item.list()? {
        match item.choice(&PROXY_TLVS) {
            Some(tlv) if !tlvs.contains(&tlv) => tlvs.push(tlv),
            Some(_) => {
                item.error("is listed twice");
                is_faulty = true;
            }
            None => is_faulty = true,
        }
    }
    (!is_faulty).then_some(tlvs)
}

/// The words for [`Upstream::proxy_protocol`](crate::Upstream::proxy_protocol).
pub(crate) const PROXY_VERSIONS: [(&str, Option<ProxyVersion>); 3] =
    [("off", None), ("v1", Some(ProxyVersion::V1)), ("v2", Some(ProxyVersion::V2))];

/// The words for [`Upstream::proxy_tlvs`](crate::Upstream::proxy_tlvs).
pub(crate) const PROXY_TLVS: [(&str, ProxyTlv); 4] = [
    ("unique_id", ProxyTlv::UniqueId),
    ("authority", ProxyTlv::Authority),
    ("ssl", ProxyTlv::Ssl),
    ("crc32c", ProxyTlv::Crc32c),
];
