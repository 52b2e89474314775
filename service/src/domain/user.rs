//! A user as stored, and the rules of its names.

use super::UserId;
use crate::clock::Timestamp;

/// A person, or a program, with an account.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct User {
    /// For ever the same.
    pub id: UserId,
    /// The localpart of the Matrix user id.
    pub username: String,
    /// Shown to others, if set.
    pub display_name: Option<String>,
    /// May ask for scopes that administer.
    pub can_request_admin: bool,
    /// When the account was made.
    pub created_at: Timestamp,
    /// Since when it is locked.
    pub locked_at: Option<Timestamp>,
    /// Since when it is gone for good (or until reactivated).
    pub deactivated_at: Option<Timestamp>,
    /// When Synapse was first told of it; `None`: not yet.
    pub provisioned_at: Option<Timestamp>,
}

impl User {
    /// Whether its tokens are good and it may log in.
    pub fn is_usable(&self) -> bool {
        self.locked_at.is_none() && self.deactivated_at.is_none()
    }
}

/// Why a text is no username for a new user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UsernameError {
    /// Empty.
    #[error("a username has at least one character")]
    Empty,
    /// The whole Matrix id would be longer than the specification allows.
    #[error("the Matrix id would be longer than 255 bytes")]
    TooLong,
    /// Matrix specification, appendices §4.2.1: `a-z`, `0-9` and `._=-/+`.
    #[error("a username is made of a-z, 0-9 and . _ = - / +")]
    Characters,
    /// Synapse keeps these for itself.
    #[error("a username does not begin with an underscore")]
    Underscore,
    /// Synapse keeps these for guests.
    #[error("a username is not made of digits alone")]
    Digits,
}

/// Whether `text` may become the username of a new user of `server_name`.
///
/// # Errors
/// [`UsernameError`] says what is wrong.
pub fn check_new_username(text: &str, server_name: &str) -> Result<(), UsernameError> {
    if text.is_empty() {
        return Err(UsernameError::Empty);
    }
    if "@".len() + text.len() + ":".len() + server_name.len() > LONGEST_USER_ID {
        return Err(UsernameError::TooLong);
    }
    if !text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9') || b"._=-/+".contains(&byte)) {
        return Err(UsernameError::Characters);
    }
    if text.starts_with('_') {
        return Err(UsernameError::Underscore);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(UsernameError::Digits);
    }
    Ok(())
}

/// `@username:server_name`.
pub fn user_id(username: &str, server_name: &str) -> String {
    format!("@{username}:{server_name}")
}

/// The username in what a client calls its user: a localpart, or the whole Matrix id of this server. `None`: nobody here can be meant.
pub fn username_of<'a>(user: &'a str, server_name: &str) -> Option<&'a str> {
    let username = match user.strip_prefix('@') {
        Some(rest) => {
            let (username, server) = rest.split_once(':')?;
            if !server.eq_ignore_ascii_case(server_name) {
                return None;
            }
            username
        }
        None => user,
    };
    let plausible = !username.is_empty() && username.len() <= LONGEST_USER_ID && !username.contains('\0');
    plausible.then_some(username)
}

/// What an e-mail address is compared by: without surrounding blanks and in lower case. `None`: not an address.
pub fn email_key(email: &str) -> Option<String> {
    let key = email.trim().to_lowercase();
    let (local, domain) = key.rsplit_once('@')?;
    let plausible = !local.is_empty()
        && !domain.is_empty()
        && key.len() <= LONGEST_EMAIL
        && !key.chars().any(|c| c.is_whitespace() || c.is_control());
    plausible.then_some(key)
}

/// Matrix specification, appendices §4.2.1.
const LONGEST_USER_ID: usize = 255;
/// RFC 5321 §4.5.3.1 allows 254 at most.
const LONGEST_EMAIL: usize = 254;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usernames_follow_the_specification() {
        let check =
            |text: &str, expected| assert_eq!(check_new_username(text, "example.com"), expected, "{text}");
        check("alice", Ok(()));
        check("a.b_c=d-e/f+9", Ok(()));
        check("", Err(UsernameError::Empty));
        check("Alice", Err(UsernameError::Characters));
        check("älice", Err(UsernameError::Characters));
        check("a b", Err(UsernameError::Characters));
        check("_bridge", Err(UsernameError::Underscore));
        check("1234", Err(UsernameError::Digits));
        check(&"a".repeat(242), Ok(()));
        check(&"a".repeat(243), Err(UsernameError::TooLong));
    }

    #[test]
    fn localpart_and_full_id_name_the_same_user() {
        let check = |user: &str, expected| assert_eq!(username_of(user, "example.com"), expected, "{user}");
        check("alice", Some("alice"));
        check("@alice:example.com", Some("alice"));
        check("@alice:EXAMPLE.com", Some("alice"));
        check("@alice:elsewhere.com", None);
        check("@alice:example.com:8448", None);
        check("@alice", None);
        check("@:example.com", None);
        check("", None);
        check("a\0b", None);
    }

    #[test]
    fn addresses_are_compared_without_case() {
        assert_eq!(email_key(" Alice@Example.COM "), Some("alice@example.com".to_owned()));
        for text in ["alice", "@example.com", "alice@", "a b@example.com", ""] {
            assert_eq!(email_key(text), None, "{text}");
        }
    }
}
