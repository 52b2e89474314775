//! A user as stored.

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
