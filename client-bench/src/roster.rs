//! Users with one device each, and what their devices remember, packed: a load tool holds a
//! million of them.

use starling_codec::{Epoch, EpochTag, Place};

/// A user, what its device remembers, and where its token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    pub user: u32,
    pub device: u32,
    cursor_seq: u64,
    cursor_epoch: u32,
    /// Which of the roster's openings was the last WELCOME's.
    opening: u32,
    token_at: u32,
    token_bytes: u8,
}

const _: () = assert!(size_of::<User>() <= 32);

impl User {
    pub fn cursor(&self) -> Place {
        Place::new(self.cursor_seq, Epoch(self.cursor_epoch))
    }

    pub fn set_cursor(&mut self, cursor: Place) {
        (self.cursor_seq, self.cursor_epoch) = (cursor.seq, cursor.epoch.0);
    }
}

/// Some users.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    pub users: Vec<User>,
    /// All tokens, one behind the other.
    tokens: Vec<u8>,
    /// The openings of stores that WELCOMEs told: few, whatever the number of users.
    openings: Vec<(Epoch, EpochTag)>,
}

impl Roster {
    /// None yet, with room for `users`.
    pub fn with_room(users: usize) -> Roster {
        Roster { users: Vec::with_capacity(users), ..Roster::default() }
    }

    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Adds a user whose device remembers `cursor` and the opening that the last WELCOME told.
    pub fn push(
        &mut self,
        (user, device): (u32, u32),
        token: &[u8],
        cursor: Place,
        last: (Epoch, EpochTag),
    ) {
        let missing = self.users.capacity() - self.users.len();
        if self.tokens.capacity() - self.tokens.len() < token.len() {
            self.tokens.reserve_exact(missing.max(1_024) * token.len());
        }
        let opening = self.opening(last);
        self.users.push(User {
            user,
            device,
            cursor_seq: cursor.seq,
            cursor_epoch: cursor.epoch.0,
            opening,
            token_at: self.tokens.len() as u32,
            // The protocol's tokens have at most 128 bytes.
            token_bytes: token.len() as u8,
        });
        self.tokens.extend_from_slice(token);
    }

    pub fn token(&self, user: &User) -> &[u8] {
        &self.tokens[user.token_at as usize..][..usize::from(user.token_bytes)]
    }

    /// What the last WELCOME of a user's device told.
    pub fn last(&self, user: &User) -> (Epoch, EpochTag) {
        self.openings[user.opening as usize]
    }

    /// A WELCOME told this to the user at `index`.
    pub fn welcomed(&mut self, index: usize, last: (Epoch, EpochTag)) {
        self.users[index].opening = self.opening(last);
    }

    /// The users at `indices`, in that order.
    pub fn part(&self, indices: impl Iterator<Item = usize> + Clone) -> Roster {
        let mut part = Roster::with_room(indices.clone().count());
        for index in indices {
            let user = &self.users[index];
            let (token, last) = (self.token(user), self.last(user));
            part.push((user.user, user.device), token, user.cursor(), last);
        }
        part
    }

    /// What the devices of a [`part`](Roster::part) remember now.
    pub fn absorb(&mut self, part: &Roster, indices: impl Iterator<Item = usize>) {
        for (user, index) in part.users.iter().zip(indices) {
            self.users[index].set_cursor(user.cursor());
            self.welcomed(index, part.last(user));
        }
    }

    fn opening(&mut self, last: (Epoch, EpochTag)) -> u32 {
        let known = self.openings.iter().rposition(|opening| *opening == last);
        let place = known.unwrap_or_else(|| {
            self.openings.push(last);
            self.openings.len() - 1
        });
        place as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_goes_and_comes_back_with_what_it_learnt() {
        let mut roster = Roster::with_room(3);
        for number in 1..=3u8 {
            let last = (Epoch(u32::from(number)), EpochTag(7));
            roster.push((number.into(), 1), &[number; 41], Place::START, last);
        }
        let mut part = roster.part([2, 0].into_iter());
        assert_eq!(part.token(&part.users[0]), [3; 41]);
        assert_eq!(part.last(&part.users[1]), (Epoch(1), EpochTag(7)));
        part.users[0].set_cursor(Place::new(9, Epoch(4)));
        part.welcomed(0, (Epoch(4), EpochTag(8)));
        roster.absorb(&part, [2, 0].into_iter());
        assert_eq!(roster.users[2].cursor(), Place::new(9, Epoch(4)));
        assert_eq!(roster.last(&roster.users[2]), (Epoch(4), EpochTag(8)));
        assert_eq!(roster.last(&roster.users[0]), (Epoch(1), EpochTag(7)));
        assert_eq!(roster.users[1].cursor(), Place::START);
    }
}
