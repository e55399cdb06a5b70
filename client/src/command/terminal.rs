//! What is printed: lines for people, or JSON lines for machines.

use super::{
    failure::Failure,
    json::{Addressed, Line},
};
use crate::{Entry, Identity, Peer, Unsent};
use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
};

pub(super) struct Terminal {
    json: bool,
    /// The device that the command speaks for, for machines.
    at: Option<String>,
    colours: bool,
    out: io::BufWriter<io::Stdout>,
}

/// How a piece of a line looks on a terminal.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ink {
    Name,
    Own,
    Faint,
    Good,
    Bad,
}

impl Ink {
    fn code(self) -> &'static str {
        match self {
            Ink::Name => "1;36",
            Ink::Own => "1;32",
            Ink::Faint => "2",
            Ink::Good => "32",
            Ink::Bad => "31",
        }
    }
}

impl Terminal {
    pub fn new(json: bool) -> Terminal {
        // https://no-color.org: set and not empty.
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let colours = wanted && !json && io::stdout().is_terminal();
        Terminal { json, at: None, colours, out: io::BufWriter::new(io::stdout()) }
    }

    /// From now on lines for machines name the device that prints them.
    pub fn speak_for(&mut self, identity: &Identity) {
        self.at = Some(format!("{}.{}", identity.user, identity.device));
    }

    pub fn is_json(&self) -> bool {
        self.json
    }

    /// A text in colour, where there are colours.
    pub fn paint(&self, ink: Ink, text: impl Display) -> String {
        match self.colours {
            true => format!("\x1b[{}m{text}\x1b[0m", ink.code()),
            false => text.to_string(),
        }
    }

    /// Prints a line for machines, or another for people.
    pub fn print(&mut self, line: &Line, human: impl FnOnce(&Terminal) -> String) -> Printed {
        if self.json {
            let line = Addressed { line, at: self.at.as_deref() };
            serde_json::to_writer(&mut self.out, &line).map_err(io::Error::from)?;
            writeln!(self.out)?;
        } else {
            let text = human(self);
            writeln!(self.out, "{text}")?;
        }
        Ok(())
    }

    /// Prints a line that only machines want.
    pub fn print_if_json(&mut self, line: &Line) -> Printed {
        if self.json { self.print(line, |_| String::new()) } else { Ok(()) }
    }

    /// What was printed reaches its reader.
    pub fn flush(&mut self) -> Printed {
        Ok(self.out.flush()?)
    }

    /// A remark beside the output, for people only.
    pub fn remark(&self, text: &str) {
        if !self.json {
            eprintln!("{}", self.paint(Ink::Faint, text));
        }
    }

    pub fn unsent(&mut self, entry: &Entry, why: Unsent, text: Option<&str>) -> Printed {
        let line = Line::unsent(entry, why, text);
        self.print(&line, |terminal| {
            let to = match entry.message.to {
                Peer::User(user) => format!("user {user}"),
                Peer::Conversation(conversation) => format!("conversation {conversation}"),
            };
            let why = match why {
                Unsent::Lost => "the server lost it",
                Unsent::Stale => "it was too old to be told apart",
            };
            let what = format!("not sent to {to} ({why}): {}", text.unwrap_or("(no text)"));
            terminal.paint(Ink::Bad, visible(&what))
        })?;
        self.flush()
    }

    /// One line says why the command ends.
    pub fn fail(&mut self, failure: &Failure) {
        let (code, name, retryable) = failure.code();
        let message = failure.line().into_owned();
        // With nobody to read it there is nobody to tell.
        let _ = match self.json {
            true => {
                let line = Line::Error { code, name, retryable, message };
                self.print(&line, |_| String::new()).and_then(|()| self.flush())
            }
            false => self.flush(),
        };
        if !self.json {
            eprintln!("starling: {}", visible(&failure.line()));
        }
    }
}

pub(super) type Printed = Result<(), Failure>;

impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Failure::OutputClosed
    }
}

/// What others wrote cannot steer the terminal: control characters are shown, not obeyed.
pub(super) fn visible(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' => "\n    ".to_owned(),
        '\t' => "\t".to_owned(),
        // Bidirectional overrides let a line pretend to be another.
        '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => "\u{FFFD}".to_owned(),
        _ if c.is_control() => "\u{FFFD}".to_owned(),
        _ => c.to_string(),
    };
    text.chars().map(shown).collect()
}

/// A moment in the time zone of whoever reads it.
pub(super) fn time(unix_ms: u64) -> String {
    let moment =
        i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    match moment {
        Some(moment) => {
            let local = moment.to_zoned(jiff::tz::TimeZone::system());
            local.strftime("%Y-%m-%d %H:%M:%S").to_string()
        }
        None => unix_ms.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        assert_eq!(visible("a\x1b[2Jb\r"), "a\u{FFFD}[2Jb\u{FFFD}");
        assert_eq!(visible("one\ntwo\t3 \u{202E}x"), "one\n    two\t3 \u{FFFD}x");
        assert_eq!(visible("李 👋 ü"), "李 👋 ü");
    }
}
