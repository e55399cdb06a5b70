//! The users a load logs in as. A file keeps them between runs, with all that a device must
//! remember: without its cursor a device would be sent its whole past at every run.

use crate::{hex, operator::Operator};
use anyhow::{Context, Result, bail};
use starling_codec::{Epoch, EpochTag, Place, limits};
use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

const HEADER: &str = "starling-bench users 1";

/// A user with one device, and what the device remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub user: u32,
    pub device: u32,
    pub token: Box<[u8]>,
    pub cursor: Place,
    /// Of the last WELCOME.
    pub epoch: Epoch,
    pub tag: EpochTag,
}

/// All users of a load, and where they are kept.
#[derive(Debug)]
pub struct Users {
    path: Option<PathBuf>,
    /// Begins the names of these users, so that files do not get in each other's way.
    prefix: String,
    pub list: Vec<User>,
}

impl Users {
    /// The users of a file; none if there is no file yet, or no path.
    ///
    /// # Errors
    /// The file cannot be read or is not one of users.
    pub fn open(path: Option<&Path>) -> Result<Users> {
        let fresh = || Users {
            path: path.map(Path::to_owned),
            prefix: format!("bench-{:08x}", rand::random::<u32>()),
            list: Vec::new(),
        };
        let Some(path) = path.filter(|path| path.exists()) else { return Ok(fresh()) };
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let parsed =
            parse(&text).with_context(|| format!("{} is no users file", path.display()))?;
        Ok(Users { prefix: parsed.0, list: parsed.1, ..fresh() })
    }

    /// Makes the users that are missing to have `count`.
    ///
    /// # Errors
    /// The operator's connection fails, or the server refuses.
    pub fn ensure(&mut self, count: usize, operator: &mut Operator) -> Result<()> {
        if self.list.len() >= count {
            return Ok(());
        }
        while self.list.len() < count {
            let start = self.list.len();
            let end = count.min(start + limits::MAX_CREATE_USERS);
            let names = (start..end).map(|index| format!("{}-{index}", self.prefix)).collect();
            let made = operator.create_users(names)?;
            if made.len() != end - start {
                bail!("the server made {} users instead of {}", made.len(), end - start);
            }
            self.list.extend(made.into_iter().map(|made| User {
                user: made.user,
                device: made.device,
                token: made.token.to_vec().into(),
                cursor: Place::START,
                epoch: Epoch(0),
                tag: EpochTag(0),
            }));
        }
        self.save()
    }

    /// Some users, to be kept in a file of their own.
    pub fn part(path: &Path, list: Vec<User>) -> Users {
        Users { path: Some(path.to_owned()), prefix: String::new(), list }
    }

    /// Writes the file, if there is one: wholly or not at all.
    pub fn save(&self) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let beside = path.with_extension("new");
        fs::write(&beside, self.render())
            .and_then(|()| fs::rename(&beside, path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn render(&self) -> String {
        let mut text = format!("{HEADER} {}\n", self.prefix);
        for user in &self.list {
            let User { user, device, token, cursor, epoch, tag } = user;
            let token = hex::encode(token);
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{user} {device} {token} {} {} {} {}",
                cursor.seq, cursor.epoch.0, epoch.0, tag.0
            );
        }
        text
    }
}

fn parse(text: &str) -> Option<(String, Vec<User>)> {
    let mut lines = text.lines();
    let prefix = lines.next()?.strip_prefix(HEADER)?.trim().to_owned();
    let users = lines.map(|line| {
        let mut words = line.split(' ');
        Some(User {
            user: words.next()?.parse().ok()?,
            device: words.next()?.parse().ok()?,
            token: hex::decode(words.next()?)?.into(),
            cursor: {
                let seq = words.next()?.parse().ok()?;
                Place::new(seq, Epoch(words.next()?.parse().ok()?))
            },
            epoch: Epoch(words.next()?.parse().ok()?),
            tag: EpochTag(words.next()?.parse().ok()?),
        })
    });
    Some((prefix, users.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_users_as_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        let mut users = Users::open(Some(&path)).unwrap();
        assert!(users.list.is_empty());
        users.list = (1..=3)
            .map(|number| User {
                user: number,
                device: 1,
                token: vec![number as u8; 40].into(),
                cursor: Place::new(u64::from(number) * 1_000, Epoch(2)),
                epoch: Epoch(3),
                tag: EpochTag(u64::MAX),
            })
            .collect();
        users.save().unwrap();
        let again = Users::open(Some(&path)).unwrap();
        assert_eq!((again.prefix, again.list), (users.prefix, users.list));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "users", "starling-bench users 1 p\n1 2", "starling-bench users 2 p\n"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
