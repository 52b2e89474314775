//! Device ids and names as clients give them.

use crate::clock::Rng;

/// Why a device id is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a device id has 1 to 255 bytes and no control characters")]
pub struct DeviceIdError;

/// A device id for a client that named none.
pub fn new_id(rng: &Rng) -> String {
    rng.alphanumeric(10)
}

/// Whether Synapse will take this device id.
///
/// # Errors
/// [`DeviceIdError`] when it will not.
pub fn check_id(text: &str) -> Result<(), DeviceIdError> {
    let fine = !text.is_empty() && text.len() <= LONGEST_ID && !text.chars().any(char::is_control);
    if fine { Ok(()) } else { Err(DeviceIdError) }
}

/// A display name or user agent, without control characters and shortened; `None` when nothing is left.
pub fn tidy(text: &str, longest_chars: usize) -> Option<String> {
    let tidy: String = text.trim().chars().filter(|c| !c.is_control()).take(longest_chars).collect();
    (!tidy.is_empty()).then_some(tidy)
}

/// Synapse's bound on device ids in introspection answers.
const LONGEST_ID: usize = 255;
/// Synapse's bound on device names.
pub const LONGEST_NAME_CHARS: usize = 100;
/// Longer user agents are noise.
pub const LONGEST_USER_AGENT_CHARS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_ids_are_bounded() {
        assert_eq!(check_id("My Phone ☎"), Ok(()));
        assert_eq!(check_id(&"x".repeat(255)), Ok(()));
        for text in [String::new(), "x".repeat(256), "a\0".into(), "a\nb".into()] {
            assert_eq!(check_id(&text), Err(DeviceIdError), "{text:?}");
        }
        assert_eq!(check_id(&new_id(&Rng::seeded(1))), Ok(()));
    }

    #[test]
    fn names_are_shortened_by_characters() {
        assert_eq!(tidy(" ä\u{7}b ", 100), Some("äb".to_owned()));
        assert_eq!(tidy("äöü", 2), Some("äö".to_owned()));
        assert_eq!(tidy(" \n", 2), None);
    }
}
