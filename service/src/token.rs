//! Access and refresh tokens: how they look, what is stored of them, and whose tag they carry.
//!
//! `mct_` + 30 letters and digits + `_` + checksum: the form that secret scanners know from MAS. The first six of the thirty are
//! the [`UserTag`], the rest is random (142 bits). Only the SHA-256 is ever stored.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use crate::clock::{BASE62, Rng};
use crate::domain::UserId;
use crate::secrets::Encryption;

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `mct_`: access token of a compat session.
    CompatAccess,
    /// `mcr_`: refresh token of a compat session.
    CompatRefresh,
    /// `mlt_`: login token (`m.login.token`).
    Login,
}

/// A new token, known only to whom it is handed. `Debug` and `Display` do not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// SHA-256 of a token in hexadecimal: what is stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenHash(String);

/// Makes the short tag of a user that its tokens carry: the same for all tokens of a user, and meaningless without the key, so that
/// the edge can keep one user's requests together without asking the database.
#[derive(Clone)]
pub struct UserTags(Hmac<Sha256>);

/// Six letters and digits that stand for a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserTag(String);

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Self::CompatAccess => "mct_",
            Self::CompatRefresh => "mcr_",
            Self::Login => "mlt_",
        }
    }
}

impl Token {
    /// A new one.
    pub fn make(kind: Kind, tag: &UserTag, rng: &Rng) -> Self {
        let mut text = format!("{}{}{}", kind.prefix(), tag.0, rng.alphanumeric(RANDOM_LENGTH - TAG_LENGTH));
        let checksum = checksum(&text);
        text.push('_');
        text.push_str(&checksum);
        Self(text)
    }

    /// The token itself: for the answer to its owner only.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is stored of it.
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

impl TokenHash {
    /// The hash of what a client presents; `None` when it cannot be a token of ours: too long, or of our form with a wrong checksum.
    /// Other forms (imported `syt_…`) are looked up like our own.
    pub fn of_presented(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > LONGEST {
            return None;
        }
        let ours = [Kind::CompatAccess, Kind::CompatRefresh, Kind::Login];
        if ours.iter().any(|kind| text.starts_with(kind.prefix())) && !is_well_formed(text) {
            return None;
        }
        Some(Self::of(text))
    }

    /// One that was read from storage.
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn of(text: &str) -> Self {
        Self(hex::encode(Sha256::digest(text.as_bytes())))
    }
}

impl UserTags {
    /// With a key derived from `secrets.encryption`.
    pub fn new(encryption: &Encryption) -> Self {
        let key = keyed(&encryption.0)
            .chain_update(b"gatehouse: tag of the user in a token, 1")
            .finalize()
            .into_bytes();
        Self(keyed(&key))
    }

    /// The tag of a user.
    pub fn tag(&self, user: &UserId) -> UserTag {
        let mac = self.0.clone().chain_update(user.as_str().as_bytes()).finalize().into_bytes();
        let mut value = mac.iter().take(8).fold(0_u64, |value, byte| (value << 8) | u64::from(*byte));
        let mut text = String::with_capacity(TAG_LENGTH);
        for _ in 0..TAG_LENGTH {
            text.push(digit(value % 62));
            value /= 62;
        }
        UserTag(text)
    }
}

impl fmt::Debug for UserTags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserTags")
    }
}

impl UserTag {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The tag in a token, without any look at who it is or whether the token is good. `None` when the text is no token of ours.
pub fn tag_of(text: &str) -> Option<&str> {
    is_well_formed(text).then(|| &text[PREFIX_LENGTH..PREFIX_LENGTH + TAG_LENGTH])
}

fn is_well_formed(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == PREFIX_LENGTH + RANDOM_LENGTH + 1 + CHECKSUM_LENGTH
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        && bytes[PREFIX_LENGTH - 1] == b'_'
        && bytes[PREFIX_LENGTH + RANDOM_LENGTH] == b'_'
        && text[PREFIX_LENGTH + RANDOM_LENGTH + 1..] == checksum(&text[..PREFIX_LENGTH + RANDOM_LENGTH])
}

/// CRC-32 in base 62, least significant digit first, padded on the left.
fn checksum(text: &str) -> String {
    let mut value = u64::from(crc32fast::hash(text.as_bytes()));
    let mut digits = String::with_capacity(CHECKSUM_LENGTH);
    while value > 0 {
        digits.push(digit(value % 62));
        value /= 62;
    }
    format!("{digits:0>CHECKSUM_LENGTH$}")
}

fn digit(value: u64) -> char {
    char::from(BASE62[usize::try_from(value % 62).unwrap_or(0)])
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of every length")
}

const PREFIX_LENGTH: usize = 4;
const RANDOM_LENGTH: usize = 30;
/// 35 bits: enough to spread users over workers, too few to be called an identity.
const TAG_LENGTH: usize = 6;
const CHECKSUM_LENGTH: usize = 6;
/// No token that was ever issued by us, MAS or Synapse is this long.
const LONGEST: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn checksums_are_those_of_the_known_vectors() {
        let a = "a".repeat(30);
        let check = |token: &str| assert!(is_well_formed(token), "{token}");
        for (prefix, checksum) in
            [("mat", "9DsFA3"), ("mct", "pLyOX3"), ("mar", "eK0gC4"), ("mcr", "kyYvU2"), ("mpt", "eN94F1")]
        {
            check(&format!("{prefix}_{a}_{checksum}"));
        }
        check("mat_xxxxxxxxxxxxxxxxxxxxxxxxxxx336_00Uamm");
    }

    #[test]
    fn a_token_carries_the_tag_of_its_user_and_is_well_formed() {
        let rng = Rng::seeded(3);
        let tags = UserTags::new(&Encryption([9; 32]));
        let alice = UserId::new(Timestamp::from_millis(1), &rng);
        let bob = UserId::new(Timestamp::from_millis(1), &rng);
        let first = Token::make(Kind::CompatAccess, &tags.tag(&alice), &rng);
        let second = Token::make(Kind::CompatRefresh, &tags.tag(&alice), &rng);
        assert_ne!(first.expose(), second.expose());
        assert_eq!(tag_of(first.expose()), Some(tags.tag(&alice).as_str()));
        assert_eq!(tag_of(first.expose()), tag_of(second.expose()));
        assert_ne!(tags.tag(&alice), tags.tag(&bob));
        assert_ne!(tags.tag(&alice), UserTags::new(&Encryption([8; 32])).tag(&alice));
        assert_eq!(TokenHash::of_presented(first.expose()), Some(first.hash()));
    }

    #[test]
    fn what_cannot_be_a_token_is_not_even_looked_up() {
        assert_eq!(TokenHash::of_presented(""), None);
        assert_eq!(TokenHash::of_presented(&"x".repeat(513)), None);
        assert_eq!(TokenHash::of_presented(&format!("mct_{}_pLyOX4", "a".repeat(30))), None);
        assert_eq!(TokenHash::of_presented("mct_ä"), None);
        assert!(TokenHash::of_presented("syt_YWxpY2U_abcdefghijklmnopqrst_0abcde").is_some());
        assert_eq!(tag_of("mct_é"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_and_only_well_formed_ones_have_a_tag(text in ".{0,80}", random in "[0-9A-Za-z]{30}") {
            let _ = TokenHash::of_presented(&text);
            proptest::prop_assert!(tag_of(&text).is_none() || text.is_ascii());
            let made = format!("mct_{random}_{}", checksum(&format!("mct_{random}")));
            proptest::prop_assert_eq!(tag_of(&made), Some(&random[..TAG_LENGTH]));
        }
    }
}
