//! The users a load logs in as. A file keeps them between runs, with all that a device must
//! remember: without its cursor a device would be sent its whole past at every run.

use crate::{hex, interrupt, operator::Operator, roster::Roster};
use anyhow::{Context, Result, bail};
use starling_codec::{Epoch, EpochTag, Place, limits};
use std::{
    fmt::Write as _,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const HEADER: &str = "starling-bench users 1";
/// Between two lines about users that are being made.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// All users of a load, and where they are kept.
#[derive(Debug)]
pub struct Users {
    path: Option<PathBuf>,
    /// Begins the names of these users, so that files do not get in each other's way.
    prefix: String,
    pub list: Roster,
    /// Held as long as these users, of the cache, are used.
    lock: Option<fs::File>,
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
            list: Roster::default(),
            lock: None,
        };
        let Some(path) = path.filter(|path| path.exists()) else { return Ok(fresh()) };
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let parsed =
            parse(&text).with_context(|| format!("{} is no users file", path.display()))?;
        Ok(Users { prefix: parsed.0, list: parsed.1, ..fresh() })
    }

    /// The users of a file; without one, those of earlier runs on the same server, which its
    /// operator's key names. Another run that uses them just now keeps them to itself.
    pub fn open_or_cached(path: Option<&Path>, operator_key: &Path) -> Result<Users> {
        if path.is_some() {
            return Users::open(path);
        }
        let Some((cached, lock)) = cache(operator_key) else { return Users::open(None) };
        // A cache that cannot be read is made anew.
        let users = Users::open(Some(&cached)).or_else(|_| {
            let _ = fs::remove_file(&cached);
            Users::open(Some(&cached))
        })?;
        Ok(Users { lock: Some(lock), ..users })
    }

    /// Makes the users that are missing to have `count`, and tells of it if that takes long.
    ///
    /// # Errors
    /// The operator's connection fails, the server refuses, or Ctrl-C ends it; what was made by
    /// then is kept.
    pub fn ensure(&mut self, count: usize, operator: &mut Operator) -> Result<()> {
        if self.list.len() >= count {
            return Ok(());
        }
        let mut told = Instant::now();
        while self.list.len() < count {
            let start = self.list.len();
            if interrupt::requested() {
                self.save()?;
                bail!("interrupted when {start} of {count} users were made");
            }
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                eprintln!("users: {start} of {count}");
            }
            let end = count.min(start + limits::MAX_CREATE_USERS);
            let names = (start..end).map(|index| format!("{}-{index}", self.prefix)).collect();
            let made = operator.create_users(names)?;
            if made.len() != end - start {
                bail!("the server made {} users instead of {}", made.len(), end - start);
            }
            for made in made {
                let fresh = (Epoch(0), EpochTag(0));
                self.list.push((made.user, made.device), &made.token, Place::START, fresh);
            }
        }
        self.save()
    }

    /// Says of an error what these users have to do with it. Tokens do not live for ever, nor does
    /// each server know each of them: those of the cache are then forgotten, to be made anew.
    pub fn or_forget<T>(&self, result: Result<T>) -> Result<T> {
        let Err(error) = result else { return result };
        let (true, Some(path)) = (format!("{error:#}").contains("TOKEN_"), &self.path) else {
            return Err(error);
        };
        if self.lock.is_none() {
            let path = path.display();
            return Err(
                error.context(format!("the tokens in {path} are good no longer: delete it"))
            );
        }
        fs::remove_file(path).with_context(|| format!("cannot forget {}", path.display()))?;
        Err(error.context(
            "the tokens of an earlier run are good no longer; now forgotten, run it again",
        ))
    }

    /// Some users, to be kept in a file of their own.
    pub fn part(path: &Path, list: Roster) -> Users {
        Users { path: Some(path.to_owned()), prefix: String::new(), list, lock: None }
    }

    /// Writes the file, if there is one: wholly or not at all.
    pub fn save(&self) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let beside = path.with_extension("new");
        // Tokens are as good as passwords.
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options
            .open(&beside)
            .and_then(|mut file| file.write_all(self.render().as_bytes()))
            .and_then(|()| fs::rename(&beside, path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn render(&self) -> String {
        format!("{HEADER} {}\n{}", self.prefix, render_roster(&self.list))
    }
}

/// A line for each user.
pub fn render_roster(roster: &Roster) -> String {
    let mut text = String::new();
    for user in &roster.users {
        let (cursor, (epoch, tag)) = (user.cursor(), roster.last(user));
        let token = hex::encode(roster.token(user));
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{} {} {token} {} {} {} {}",
            user.user, user.device, cursor.seq, cursor.epoch.0, epoch.0, tag.0
        );
    }
    text
}

/// Where the users of a server are kept between runs, and the lock on them; none if there is no
/// such place, or another run has it.
fn cache(operator_key: &Path) -> Option<(PathBuf, fs::File)> {
    let key = fs::read_to_string(operator_key).ok()?;
    let home = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let directory = home.join("starling-bench");
    fs::create_dir_all(&directory).ok()?;
    let mut hasher = DefaultHasher::new();
    key.trim().hash(&mut hasher);
    let path = directory.join(format!("users-{:016x}", hasher.finish()));
    let lock = fs::File::create(path.with_extension("lock")).ok()?;
    lock.try_lock().ok()?;
    Some((path, lock))
}

fn parse(text: &str) -> Option<(String, Roster)> {
    let (first, rest) = text.split_once('\n')?;
    let prefix = first.strip_prefix(HEADER)?.trim().to_owned();
    Some((prefix, parse_roster(rest)?))
}

/// What [`render_roster`] wrote.
pub fn parse_roster(rest: &str) -> Option<Roster> {
    let mut roster = Roster::with_room(rest.lines().count());
    for line in rest.lines() {
        let mut words = line.split(' ');
        let user = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let token = hex::decode(words.next()?)?;
        let mut number = || words.next()?.parse::<u64>().ok();
        let cursor = Place::new(number()?, Epoch(u32::try_from(number()?).ok()?));
        let last = (Epoch(u32::try_from(number()?).ok()?), EpochTag(number()?));
        if token.len() > limits::MAX_TOKEN_BYTES {
            return None;
        }
        roster.push(user, &token, cursor, last);
    }
    Some(roster)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_users_as_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        let mut users = Users::open(Some(&path)).unwrap();
        assert_eq!(users.list.len(), 0);
        for number in 1..=3u32 {
            let cursor = Place::new(u64::from(number) * 1_000, Epoch(2));
            let last = (Epoch(number), EpochTag(u64::MAX));
            users.list.push((number, 1), &[number as u8; 40], cursor, last);
        }
        users.save().unwrap();
        let again = Users::open(Some(&path)).unwrap();
        assert_eq!((again.render(), again.list.len()), (users.render(), 3));
        assert_eq!(again.list.users[2].cursor(), Place::new(3_000, Epoch(2)));
    }

    #[test]
    fn tokens_that_are_good_no_longer_are_named_and_those_of_the_cache_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        let mut users = Users::open(Some(&path)).unwrap();
        users.save().unwrap();
        let refused = || -> Result<()> { bail!("the server refused: TOKEN_EXPIRED") };
        let said =
            |users: &Users, result| format!("{:#}", users.or_forget::<()>(result).unwrap_err());
        // A file that somebody named stays.
        let error = said(&users, refused());
        assert!(error.contains(path.to_str().unwrap()) && error.contains("EXPIRED"), "{error}");
        assert!(path.exists());
        users.lock = Some(fs::File::create(directory.path().join("lock")).unwrap());
        // What has to do with no token forgets none.
        assert_eq!(said(&users, Err(anyhow::anyhow!("no port is left"))), "no port is left");
        assert!(path.exists());
        assert!(said(&users, refused()).contains("run it again"));
        assert!(!path.exists());
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "users\n", "starling-bench users 1 p\n1 2", "starling-bench users 2 p\n"] {
            assert!(parse(text).is_none(), "{text:?}");
        }
    }
}
