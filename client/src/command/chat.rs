//! `chat`: a conversation, line by line. What comes in is printed above what is being typed.

use super::{
    failure::Failure,
    history::last_messages,
    json::Line,
    listen::message_line,
    profile::{Context, Online, report_unsent},
    terminal::{Ink, Terminal, visible},
};
use crate::{
    Event, Outgoing, Peer, QueueError, RequestError, SendError, Sending,
    codec::{
        ConversationId, UserId,
        wire::{self, event::Kind},
    },
};
use rustyline::{DefaultEditor, ExternalPrinter};
use std::{
    io::{self, BufRead, IsTerminal},
    thread,
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinSet};

/// Messages shown when a chat begins.
const RECALLED: u32 = 10;
/// How long to wait for the last acknowledgements after the last line.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn run(
    context: &Context,
    terminal: &mut Terminal,
    name: &str,
) -> Result<(), Failure> {
    let online = context.connect().await?;
    terminal.speak_for(&online.identity);
    let resolved = tokio::time::timeout(PATIENCE, online.client.resolve(name)).await;
    let peer = resolved
        .unwrap_or(Err(RequestError::Lost))
        .map_err(|error| Failure::request(error, name))?;
    online.journal.keep_name(peer, name)?;
    report_unsent(&online.client, terminal).await?;

    let mut room = Room { peer, name: name.to_owned(), own: online.identity.user, seen: 0 };
    for message in last_messages(&online, peer, name, RECALLED).await? {
        room.seen = message.seq;
        let line = room.message(terminal, &online.identity.name, &message);
        terminal.print(&Line::message(&message, None), |_| line)?;
    }
    let hint = format!("chat with {}; Ctrl-D ends it", visible(name));
    terminal.remark(&hint);
    terminal.flush()?;

    let (lines, mut screen) = open_keyboard(terminal);
    let online = room.talk(online, terminal, lines, &mut screen).await?;
    online.finish(terminal).await
}

/// Where lines go while somebody may be typing.
enum Screen {
    /// An editor holds the last line of the terminal.
    Editor(Box<dyn ExternalPrinter>),
    Plain,
}

impl Screen {
    fn print(&mut self, terminal: &mut Terminal, line: &Line, text: String) -> Result<(), Failure> {
        match self {
            Screen::Editor(printer) if !terminal.is_json() => {
                printer.print(format!("{text}\n")).map_err(|_| Failure::OutputClosed)
            }
            _ => {
                terminal.print(line, |_| text)?;
                terminal.flush()
            }
        }
    }
}

/// Reads lines on a thread of its own: an editor where there is a terminal.
///
/// A line never waits for the chat: the editor would stop showing what comes in, for which the
/// chat may be waiting just then.
fn open_keyboard(terminal: &Terminal) -> (mpsc::UnboundedReceiver<String>, Screen) {
    let (typed, lines) = mpsc::unbounded_channel();
    if io::stdin().is_terminal()
        && !terminal.is_json()
        && let Ok(mut editor) = DefaultEditor::new()
        && let Ok(printer) = editor.create_external_printer()
    {
        thread::spawn(move || {
            loop {
                match editor.readline("> ") {
                    Ok(line) => {
                        // Without a history the arrow keys do nothing, which is no harm.
                        let _ = editor.add_history_entry(&line);
                        if typed.send(line).is_err() {
                            return;
                        }
                    }
                    Err(_) => return,
                }
            }
        });
        return (lines, Screen::Editor(Box::new(printer)));
    }
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if typed.send(line).is_err() {
                return;
            }
        }
    });
    (lines, Screen::Plain)
}

struct Room {
    peer: UserId,
    name: String,
    own: UserId,
    /// Messages of the conversation up to this seq were printed.
    seen: u64,
}

impl Room {
    async fn talk(
        mut self,
        mut online: Online,
        terminal: &mut Terminal,
        mut lines: mpsc::UnboundedReceiver<String>,
        screen: &mut Screen,
    ) -> Result<Online, Failure> {
        let mut sendings = JoinSet::new();
        loop {
            tokio::select! {
                line = lines.recv() => match line {
                    None => break,
                    Some(line) if line.trim().is_empty() => {}
                    Some(line) => {
                        let message = Outgoing::text(Peer::User(self.peer), &line);
                        match online.client.post(message).await {
                            Ok(sending) => drop(sendings.spawn(tick(sending))),
                            Err(error) => self.show_not_taken(terminal, screen, error)?,
                        }
                    }
                },
                Some(Ok(answer)) = sendings.join_next() => {
                    self.show_answer(terminal, screen, answer)?;
                }
                event = online.events.next() => match event {
                    None => break,
                    Some(Event::Stopped(reason)) => {
                        return Err(Failure::stopped(reason, &online.identity.name));
                    }
                    Some(event) => self.show(terminal, screen, &online, event)?,
                },
            }
        }
        // The last lines get their ticks too; what is not acknowledged by then is kept.
        let ticks = async {
            while let Some(Ok(answer)) = sendings.join_next().await {
                self.show_answer(terminal, screen, answer)?;
            }
            Ok::<(), Failure>(())
        };
        tokio::time::timeout(PATIENCE, ticks).await.unwrap_or(Ok(()))?;
        Ok(online)
    }

    /// A line that cannot be sent is one line more on the screen, and the chat goes on.
    fn show_not_taken(
        &self,
        terminal: &Terminal,
        screen: &mut Screen,
        error: QueueError,
    ) -> Result<(), Failure> {
        let failure = Failure::send(SendError::Queue(error), &self.name);
        if error == QueueError::Stopped {
            return Err(failure);
        }
        let text = format!("  not sent: {}", failure.line());
        match screen {
            Screen::Editor(printer) => {
                let text = terminal.paint(Ink::Bad, text);
                printer.print(format!("{text}\n")).map_err(|_| Failure::OutputClosed)
            }
            // Where lines come through a pipe nobody is there to type this one again.
            Screen::Plain => Err(failure),
        }
    }

    fn show_answer(
        &self,
        terminal: &mut Terminal,
        screen: &mut Screen,
        answer: Result<crate::Receipt, SendError>,
    ) -> Result<(), Failure> {
        match answer {
            Ok(receipt) => {
                let tick =
                    terminal.paint(Ink::Faint, format!("  ✓ message {} is safe", receipt.seq));
                screen.print(terminal, &Line::sent(&receipt), tick)
            }
            Err(SendError::Unsent(_)) => Ok(()),
            Err(error) => Err(Failure::send(error, &self.name)),
        }
    }

    fn show(
        &mut self,
        terminal: &mut Terminal,
        screen: &mut Screen,
        online: &Online,
        event: Event,
    ) -> Result<(), Failure> {
        match event {
            Event::Applied(event) => match &event.kind {
                Some(Kind::Message(message)) if self.is_here(message.conversation) => {
                    let from_here =
                        message.sender == self.own.0 && message.device == online.identity.device.0;
                    // What was typed here stands there already; a JSON reader gets all of it.
                    let known = message.seq <= self.seen || (from_here && !terminal.is_json());
                    self.seen = self.seen.max(message.seq);
                    if known {
                        return Ok(());
                    }
                    let text = self.message(terminal, &online.identity.name, message);
                    screen.print(terminal, &Line::event(&event), text)
                }
                Some(Kind::Delivered(delivered)) if self.is_here(delivered.conversation) => {
                    let tick = format!("  ✓✓ message {} has reached them", delivered.seq);
                    let tick = terminal.paint(Ink::Faint, tick);
                    screen.print(terminal, &Line::event(&event), tick)
                }
                _ => Ok(()),
            },
            Event::Offline { why, retry_in_ms } => {
                let text = terminal.paint(Ink::Faint, "  the connection is lost; it comes back");
                screen.print(terminal, &Line::offline(why, retry_in_ms), text)
            }
            Event::Online(welcomed) => {
                let text = terminal.paint(Ink::Faint, "  connected");
                screen.print(terminal, &Line::online(&online.identity, &welcomed), text)
            }
            Event::Rewound(place) => {
                self.seen = 0;
                let text = terminal.paint(Ink::Bad, "  the server lost its last messages");
                screen.print(terminal, &Line::rewind(place), text)
            }
            Event::Reset => {
                self.seen = 0;
                let text = terminal.paint(Ink::Bad, "  the server was restored: all comes anew");
                screen.print(terminal, &Line::Reset, text)
            }
            // Shown, and forgotten, at the end of the chat and at the start of the next command.
            Event::Unsent(entry) => {
                let text = terminal.paint(Ink::Bad, "  a message was not sent");
                let crate::EntryState::Unsent(why) = entry.state else { return Ok(()) };
                screen.print(terminal, &Line::unsent(&entry, why, None), text)
            }
            Event::Sent { .. }
            | Event::Refused { .. }
            | Event::Answered { .. }
            | Event::Stopped(_) => Ok(()),
        }
    }

    fn is_here(&self, conversation: u64) -> bool {
        ConversationId(conversation) == ConversationId::direct(self.own, self.peer)
    }

    fn message(&self, terminal: &Terminal, own_name: &str, message: &wire::Message) -> String {
        let own = message.sender == self.own.0;
        message_line(terminal, message, if own { own_name } else { &self.name }, own)
    }
}

async fn tick(sending: Sending) -> Result<crate::Receipt, SendError> {
    sending.await
}
