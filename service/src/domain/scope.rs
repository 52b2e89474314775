//! OAuth scopes as Matrix names them (MSC2967, in both its spellings).

/// The scope of a compat session, in both spellings because Synapse versions differ in which they read.
///
/// The device is left out when its id cannot be written in a scope (RFC 6749 §3.3); the introspection answer names it anyway.
pub fn of_compat_session(device_id: &str) -> String {
    let mut scope = format!("{STABLE}api:* {UNSTABLE}api:*");
    if is_scope_token(device_id) {
        scope.push_str(&format!(" {STABLE}device:{device_id} {UNSTABLE}device:{device_id}"));
    }
    scope
}

/// RFC 6749 §3.3: `1*( %x21 / %x23-5B / %x5D-7E )`.
fn is_scope_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}

const STABLE: &str = "urn:matrix:client:";
const UNSTABLE: &str = "urn:matrix:org.matrix.msc2967.client:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_name_the_same_device() {
        assert_eq!(
            of_compat_session("ABC"),
            "urn:matrix:client:api:* urn:matrix:org.matrix.msc2967.client:api:* urn:matrix:client:device:ABC \
             urn:matrix:org.matrix.msc2967.client:device:ABC"
        );
    }

    #[test]
    fn a_device_that_would_split_the_scope_is_left_out() {
        for device in ["a b", "a urn:synapse:admin:*", "ä", "\"", ""] {
            assert_eq!(
                of_compat_session(device),
                "urn:matrix:client:api:* urn:matrix:org.matrix.msc2967.client:api:*"
            );
        }
    }
}
