//! `listen`: what comes in, each once, over restarts of this command and of the server.

use super::{
    failure::Failure,
    json::Line,
    profile::{Context, Online, report_unsent},
    terminal::{Ink, Terminal, time, visible},
};
use crate::{
    Client, Event, Journal, StopReason,
    codec::{
        ConversationId, Epoch, Place, UserId,
        wire::{self, event::Kind},
    },
    text_of,
};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long to wait for a name before a number stands in for it.
const NAME_PATIENCE: Duration = Duration::from_secs(5);

/// A place in the inbox, as `--after` is given it.
pub(super) fn place(text: &str) -> Result<Place, String> {
    let parsed = || {
        let (seq, epoch) = text.split_once(':')?;
        Some(Place::new(seq.parse().ok()?, Epoch(epoch.parse().ok()?)))
    };
    parsed().ok_or_else(|| "name a place as INBOX_SEQ:EPOCH, like 12:1".to_owned())
}

pub(super) async fn run(
    context: &Context,
    terminal: &mut Terminal,
    after: Option<Place>,
) -> Result<(), Failure> {
    let mut interrupts = Interrupts::new()?;
    let (profile, identity) = context.open_logged_in()?;
    terminal.speak_for(&identity);
    if let Some(place) = after {
        profile.journal.set_shown(place)?;
    }
    // What other commands of this profile received. What comes after this is told as it comes.
    let taken_back = profile.journal.taken_back()?;
    let missed = profile.journal.unshown()?.into_iter().map(Event::Applied);
    let mut online = tokio::select! {
        online = context.connect_profile(profile, identity) => online?,
        () = interrupts.next() => return Ok(()),
    };
    show_all(&online, terminal, taken_back.into_iter().chain(missed)).await?;
    report_unsent(&online.client, terminal).await?;
    match follow(&mut online, terminal, &mut interrupts).await? {
        None => {
            online.client.close().await;
            if let Some((place, hash)) = online.journal.shown_state()? {
                terminal.print_if_json(&Line::left(place, hash))?;
                terminal.flush()?;
            }
            Ok(())
        }
        Some(reason) => Err(Failure::stopped(reason, &online.identity.name)),
    }
}

/// Prints until the user ends it, or the session does, for a reason.
async fn follow(
    online: &mut Online,
    terminal: &mut Terminal,
    interrupts: &mut Interrupts,
) -> Result<Option<StopReason>, Failure> {
    loop {
        let first = tokio::select! {
            event = online.events.next() => event,
            () = interrupts.next() => return Ok(None),
        };
        let Some(first) = first else { return Ok(None) };
        // What is there already is shown together.
        let mut events = vec![first];
        events.extend(std::iter::from_fn(|| online.events.try_next()));
        let stopped = events.iter().find_map(|event| match event {
            Event::Stopped(reason) => Some(reason.clone()),
            _ => None,
        });
        show_all(online, terminal, events).await?;
        if stopped.is_some() {
            return Ok(stopped);
        }
    }
}

/// Prints events, and remembers that they were printed once their reader has them. Killed in
/// between, it prints them again the next time; their places tell the reader so.
async fn show_all(
    online: &Online,
    terminal: &mut Terminal,
    events: impl IntoIterator<Item = Event>,
) -> Result<(), Failure> {
    let mut shown = None;
    for event in events {
        show(online, terminal, &event).await?;
        match event {
            Event::Applied(event) => shown = Some(Place::new(event.seq, Epoch(event.epoch))),
            // Remembered before anything that follows is printed: told again, it would void that.
            Event::Rewound(place) => {
                let before = shown.take().or(online.journal.shown()?);
                terminal.flush()?;
                online.journal.set_shown(before.map_or(place, |before| before.min(place)))?;
            }
            Event::Reset => {
                shown = None;
                terminal.flush()?;
                online.journal.told_reset()?;
            }
            _ => {}
        }
    }
    terminal.flush()?;
    if let Some(place) = shown {
        online.journal.set_shown(place)?;
    }
    Ok(())
}

async fn show(online: &Online, terminal: &mut Terminal, event: &Event) -> Result<(), Failure> {
    match event {
        Event::Applied(event) => {
            let text = match terminal.is_json() {
                true => String::new(),
                false => event_line(online, terminal, event).await?,
            };
            return terminal.print(&Line::event(event), |_| text);
        }
        Event::Online(welcomed) => {
            terminal.print_if_json(&Line::online(&online.identity, welcomed))?;
            terminal.remark("connected");
        }
        Event::Offline { why, retry_in_ms } => {
            terminal.print_if_json(&Line::offline(*why, *retry_in_ms))?;
            terminal.remark("the connection is lost; it comes back by itself");
        }
        Event::Rewound(place) => {
            terminal.print_if_json(&Line::rewind(*place))?;
            terminal.remark("the server lost its last messages in a power cut");
        }
        Event::Reset => {
            terminal.print_if_json(&Line::Reset)?;
            terminal.remark("the server was restored from an older backup: all comes anew");
        }
        Event::Unsent(_) => report_unsent(&online.client, terminal).await?,
        Event::Sent { receipt, .. } => terminal.print_if_json(&Line::sent(receipt))?,
        Event::Refused { refusal, .. } => terminal.remark(&refusal.to_string()),
        Event::Answered { .. } | Event::Stopped(_) => {}
    }
    Ok(())
}

async fn event_line(
    online: &Online,
    terminal: &Terminal,
    event: &wire::Event,
) -> Result<String, Failure> {
    let own = online.identity.user;
    match &event.kind {
        Some(Kind::Message(message)) => {
            let (sender, conversation) =
                (UserId(message.sender), ConversationId(message.conversation));
            let mut name = name_of(&online.client, &online.journal, sender).await?;
            if sender == own
                && let Some(peer) = conversation.peer_of(own)
            {
                let peer = name_of(&online.client, &online.journal, peer).await?;
                name = format!("{name} → {peer}");
            }
            Ok(message_line(terminal, message, &name, sender == own))
        }
        Some(Kind::Delivered(delivered)) => {
            let user = UserId(delivered.user);
            let name = name_of(&online.client, &online.journal, user).await?;
            let line = format!("✓✓ {name} has everything up to message {}", delivered.seq);
            Ok(terminal.paint(Ink::Faint, visible(&line)))
        }
        None => Ok(terminal.paint(Ink::Faint, "(something this version does not know)")),
    }
}

/// A message for people.
pub(super) fn message_line(
    terminal: &Terminal,
    message: &wire::Message,
    sender: &str,
    own: bool,
) -> String {
    let when = terminal.paint(Ink::Faint, time(message.time_ms));
    let ink = if own { Ink::Own } else { Ink::Name };
    let sender = terminal.paint(ink, visible(sender));
    match text_of(&message.content) {
        Some(text) => format!("{when}  {sender}: {}", visible(&text)),
        None => {
            let other = terminal.paint(Ink::Faint, "(something that is not text)");
            format!("{when}  {sender}: {other}")
        }
    }
}

/// The name of a user, or a number that stands in for it.
pub(super) async fn name_of(
    client: &Client,
    journal: &Journal,
    user: UserId,
) -> Result<String, Failure> {
    if let Some(name) = journal.name_of(user)? {
        return Ok(name);
    }
    match tokio::time::timeout(NAME_PATIENCE, client.name_of(user)).await {
        Ok(Ok(name)) => {
            journal.keep_name(user, &name)?;
            Ok(name)
        }
        _ => Ok(format!("user {user}")),
    }
}

/// Ctrl-C, or a polite kill. From the moment it is made neither ends the process by itself.
struct Interrupts {
    typed: Signal,
    polite: Signal,
}

impl Interrupts {
    fn new() -> Result<Interrupts, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::Usage(error.to_string()));
        let (typed, polite) = (SignalKind::interrupt(), SignalKind::terminate());
        Ok(Interrupts { typed: listen(typed)?, polite: listen(polite)? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.typed.recv() => {}
            _ = self.polite.recv() => {}
        }
    }
}
