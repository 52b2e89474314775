//! Identifiers of rows: 26 characters that sort by time of making (the ULID layout: 48 bits of milliseconds, 80 random bits).

use std::fmt;

use crate::clock::{Rng, Timestamp};

/// Makes the text of an identifier.
pub(crate) fn make(now: Timestamp, rng: &Rng) -> String {
    let millis = u128::try_from(now.millis()).unwrap_or(0) & 0xffff_ffff_ffff;
    let mut random = [0_u8; 16];
    rng.fill(&mut random[6..]);
    let value = (millis << 80) | u128::from_be_bytes(random);
    (0..26).rev().map(|digit| char::from(CROCKFORD[((value >> (digit * 5)) & 31) as usize])).collect()
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// A new one.
            pub fn new(now: Timestamp, rng: &Rng) -> Self {
                Self(make(now, rng))
            }

            /// One that was read from storage.
            pub fn from_stored(text: String) -> Self {
                Self(text)
            }

            /// Its text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

identifier!(
    /// Names a user for ever, also when the username changes hands.
    UserId
);
identifier!(
    /// Names a compat session.
    SessionId
);

/// Crockford's base 32: no I, L, O, U.
const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_identifiers_sort_after_earlier_ones() {
        let rng = Rng::seeded(7);
        let earlier = make(Timestamp::from_millis(1_700_000_000_000), &rng);
        let later = make(Timestamp::from_millis(1_700_000_000_001), &rng);
        assert!(earlier < later);
        assert_eq!(earlier.len(), 26);
        assert_eq!(&earlier[..10], "01HF7YAT00");
    }
}
