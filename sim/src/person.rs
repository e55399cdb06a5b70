//! A person: what all her devices must agree about.

use starling_codec::UserId;

/// A person, as far as her processes must agree about her.
pub struct Person {
    pub name: String,
    /// What the password may be by now, the likeliest last.
    pub passwords: Vec<String>,
    pub user: Option<UserId>,
    /// The name is hers on the server.
    pub registered: bool,
    pub processes: Vec<usize>,
}
