//! What to type next, with the options that were typed this time.

use std::{fmt::Display, path::Path, sync::OnceLock};

/// The command with the options that the next one needs as well: how this process was called,
/// which whatever goes wrong anywhere in it may want to say.
static TYPED: OnceLock<String> = OnceLock::new();

/// Takes note of the options of this command line. What the environment says it says again.
pub(super) fn remember(server: Option<&str>, profile: Option<&Path>) {
    let mut typed = "starling".to_owned();
    let options =
        [("server", server.map(Into::into)), ("profile", profile.map(Path::to_string_lossy))];
    for (name, value) in options {
        if let Some(value) = value {
            typed.push_str(&format!(" --{name} {}", quoted(&value)));
        }
    }
    // Kept by the first command of a process; a second one in it is called as the first.
    let _ = TYPED.set(typed);
}

/// A command line for the same device: `starling --profile alice login alice`.
pub(super) fn command(rest: impl Display) -> String {
    format!("{} {rest}", TYPED.get().map_or("starling", String::as_str))
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-:@+,".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_a_space_stays_one_word() {
        assert_eq!(quoted("/home/ada/profile-2"), "/home/ada/profile-2");
        assert_eq!(quoted("my profile"), "'my profile'");
        assert_eq!(quoted("ada's"), r"'ada'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
