//! A compat session, and what may be done with a refresh token of it.

use super::{SessionId, UserId};
use crate::clock::Timestamp;

/// A login of an older client: one device of one user.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Session {
    /// For ever the same.
    pub id: SessionId,
    /// Whose it is.
    pub user_id: UserId,
    /// The Matrix device.
    pub device_id: String,
    /// What the client called the device when it logged in.
    pub display_name: Option<String>,
    /// The client's `User-Agent` at login, shortened.
    pub user_agent: Option<String>,
    /// When the login was.
    pub created_at: Timestamp,
    /// From where.
    pub created_ip: Option<String>,
    /// When its tokens were last used, to a minute or so.
    pub last_active_at: Option<Timestamp>,
    /// From where, as far as known.
    pub last_active_ip: Option<String>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// A refresh token that a client presents, and the state of its session's current pair of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presented {
    /// How many exchanges came before it.
    pub generation: i64,
    /// Whether it is the session's current one.
    pub is_current: bool,
    /// The generation of the current one.
    pub current_generation: i64,
    /// Whether the access token of the current pair has been used.
    pub current_was_used: bool,
}

/// What is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exchange {
    /// A new pair of this generation takes the place of the current one.
    NewPair(i64),
    /// Somebody has a token that was exchanged long ago: the session ends.
    Stolen,
}

impl Presented {
    /// Decides about it.
    ///
    /// A client that crashed, or whose connection broke, between request and response still holds the old token. It may exchange it
    /// again as long as nobody has used what came out of it; the same holds for the losing one of two exchanges at the same time.
    /// Once the successor has been used, an old token can only be a copy in the wrong hands (RFC 9700 §4.14.2).
    pub fn exchange(self) -> Exchange {
        if self.is_current {
            return Exchange::NewPair(self.generation.saturating_add(1));
        }
        let of_this_or_the_last = self.generation.saturating_add(1) >= self.current_generation;
        if of_this_or_the_last && !self.current_was_used {
            return Exchange::NewPair(self.current_generation);
        }
        Exchange::Stolen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(generation: i64, is_current: bool, current: (i64, bool), expected: Exchange) {
        let (current_generation, current_was_used) = current;
        let presented = Presented { generation, is_current, current_generation, current_was_used };
        assert_eq!(presented.exchange(), expected, "{presented:?}");
    }

    #[test]
    fn the_current_token_is_exchanged() {
        check(0, true, (0, false), Exchange::NewPair(1));
        check(5, true, (5, true), Exchange::NewPair(6));
    }

    #[test]
    fn after_a_lost_response_the_old_token_works_again() {
        check(0, false, (1, false), Exchange::NewPair(1));
        check(7, false, (8, false), Exchange::NewPair(8));
    }

    #[test]
    fn the_loser_of_two_exchanges_at_once_can_go_on() {
        check(1, false, (1, false), Exchange::NewPair(1));
    }

    #[test]
    fn an_old_token_after_its_successor_was_used_is_stolen() {
        check(0, false, (1, true), Exchange::Stolen);
        check(1, false, (1, true), Exchange::Stolen);
        check(0, false, (2, false), Exchange::Stolen);
        check(3, false, (i64::MAX, false), Exchange::Stolen);
    }
}
