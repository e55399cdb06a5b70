//! What a load saw, as a history that `starling-check` can check. Writing it costs the load tool
//! time, so what is measured meanwhile says less of the server.

use crate::roster::Roster;
use anyhow::{Context, Result};
use starling_codec::{
    ConversationId, DeviceId, Epoch, EpochTag, Frame, Kind, MessageId, Nonce, Place, SendNo,
    SendWindow, UserId,
    history::{At, Fact, Record, StateHash, VERSION, digest},
    wire,
};
use std::{
    collections::HashMap,
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

/// The file of one process of several: their number is behind the name.
pub fn of_part(path: &Path, index: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", index + 1));
    name.into()
}

/// A file that a history goes to.
pub struct HistoryFile {
    out: BufWriter<File>,
    line: Vec<u8>,
    /// The first thing that went wrong with the file.
    failed: Option<std::io::Error>,
    devices: HashMap<At, Seen>,
}

/// What a device has seen.
#[derive(Default)]
struct Seen {
    hash: StateHash,
    /// The highest seq of its inbox that it has heard of.
    heard_seq: u64,
}

impl HistoryFile {
    pub fn create(path: &Path) -> Result<HistoryFile> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        let (out, line) = (BufWriter::new(file), Vec::new());
        let mut history = HistoryFile { out, line, failed: None, devices: HashMap::new() };
        // The users may have a life before this run.
        history.write(&Record::new(Fact::History { version: VERSION, complete: false }));
        Ok(history)
    }

    /// A message is sent, perhaps again.
    pub fn send(
        &mut self,
        at: At,
        to: UserId,
        send_no: SendNo,
        nonce: Nonce,
        class: wire::Class,
        content: &[u8],
    ) {
        let conversation = ConversationId::direct(at.user, to);
        let digest = digest(content);
        self.tell(at, Fact::Send { send_no, nonce, conversation, class, digest });
    }

    /// A frame came to a device that has come to `cursor`; what it does with it is what the
    /// protocol says.
    pub fn frame(&mut self, at: At, cursor: Place, frame: &Frame<'_>) -> Result<()> {
        match frame.kind {
            Kind::Welcome => self.welcome(at, &frame.body()?),
            Kind::SendAck => self.send_ack(at, &frame.body()?),
            Kind::Events => {
                let mut mine = cursor.seq;
                let events: wire::Events = frame.body()?;
                for event in &events.events {
                    let prev = if event.prev == 0 { event.seq - 1 } else { event.prev };
                    if event.seq > mine && prev == mine {
                        mine = event.seq;
                        self.event(at, event.into());
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    pub fn acked(&mut self, at: At, cursor: Place) {
        self.tell(at, Fact::Acked(cursor));
    }

    /// All is at rest: what the devices hold, of which have all that they heard of.
    pub fn settled(&mut self, roster: &Roster) {
        for user in &roster.users {
            let at = At { user: UserId(user.user), device: DeviceId(user.device) };
            let cursor = user.cursor();
            if let Some(seen) = self.devices.get(&at).filter(|seen| cursor.seq >= seen.heard_seq) {
                let hash = seen.hash;
                self.tell(at, Fact::State { cursor, hash });
            }
        }
    }

    /// All of it is in the file, or why not.
    pub fn finish(mut self) -> Result<()> {
        let flushed = self.out.flush();
        self.failed.map_or(flushed, Err).context("cannot write the history")
    }

    fn welcome(&mut self, at: At, welcome: &wire::Welcome) {
        let head = welcome.head.map(Place::from).unwrap_or_default();
        let seen = self.devices.entry(at).or_default();
        seen.heard_seq = seen.heard_seq.max(head.seq);
        self.tell(
            at,
            Fact::Online {
                epoch: Epoch(welcome.epoch),
                tag: EpochTag(welcome.tag),
                head,
                window: welcome.window.map(SendWindow::from).unwrap_or_default(),
                resumed: welcome.resumed,
            },
        );
        if welcome.reset {
            self.tell(at, Fact::Reset);
        } else if let Some(place) = welcome.rewind {
            self.tell(at, Fact::Rewind(place.into()));
        }
    }

    fn send_ack(&mut self, at: At, ack: &wire::SendAck) {
        let place = ack.place.map(Place::from).unwrap_or_default();
        let seen = self.devices.entry(at).or_default();
        seen.heard_seq = seen.heard_seq.max(place.seq);
        self.tell(
            at,
            Fact::Sent {
                send_no: SendNo(ack.send_no),
                nonce: None,
                id: MessageId(ack.id),
                conversation: ConversationId(ack.conversation),
                seq: ack.seq,
                place,
                class: ack.class(),
            },
        );
    }

    fn event(&mut self, at: At, fact: Fact) {
        if let Fact::Event { place, kind, .. } = &fact {
            self.devices.entry(at).or_default().hash.add(*place, kind);
        }
        self.tell(at, fact);
    }

    fn tell(&mut self, at: At, fact: Fact) {
        self.write(&Record { at: Some(at), time_ms: None, fact });
    }

    fn write(&mut self, record: &Record) {
        self.line.clear();
        record.append(&mut self.line);
        if self.failed.is_none() {
            self.failed = self.out.write_all(&self.line).err();
        }
    }
}
