//! The link of a process: how it opens, what it carries, and how it is lost.

use super::{Doing, Process, login::opener};
use crate::{
    coverage::Branch,
    network::{LinkId, ServerEnd},
    person::Person,
    plan::Trouble,
    stage::{Happening, ServerHappening, Stage},
    witness::Witness,
};
use starling_codec::{Decoded, Kind, decode_frame, history::At, limits, wire};

impl Process {
    /// The link that was being opened is there, or is not.
    pub(super) fn opened(&mut self, stage: &mut Stage, people: &[Person], server: Option<u64>) {
        let now_ms = self.now_ms(stage);
        let unreachable =
            stage.plan.troubles.has(Trouble::Unreachable) && !stage.calm && stage.random.one_in(5);
        if unreachable && server.is_some() {
            stage.coverage.reach(Branch::Unreachable);
        }
        let Some(life) = server.filter(|_| !unreachable) else {
            return match &mut self.doing {
                Doing::Runs(session) => session.closed(now_ms),
                Doing::LogsIn(log_in) => log_in.wait_until_us = stage.now_us + 500_000,
                Doing::Off { .. } | Doing::Gone => {}
            };
        };
        let latency_us = stage.random.around(stage.plan.latency_us);
        let link = stage.network.open(self.number, latency_us);
        self.link = Some(link);
        self.said.clear();
        self.heard = Some(Vec::new());
        let accept = Happening::Server(life, ServerHappening::Accept(link));
        stage.after_about(latency_us, accept);
        match &mut self.doing {
            Doing::Runs(session) => session.opened(now_ms),
            Doing::LogsIn(log_in) => {
                let person = &people[self.person];
                log_in.input.clear();
                log_in.output = opener(&self.profile, person, log_in.register, self.guesses);
            }
            Doing::Off { .. } | Doing::Gone => self.drop_link(stage),
        }
    }

    pub(super) fn open_link(&mut self, stage: &mut Stage) {
        let at_us = stage.now_us + stage.random.around(stage.plan.latency_us);
        self.opening_until_us = Some(at_us);
        self.wake_at(stage, at_us);
    }

    /// Lets go of the link, if there is one.
    pub fn drop_link(&mut self, stage: &mut Stage) {
        if let Some(link) = self.link.take() {
            stage.close_device_end(link);
        }
    }

    /// Something arrived on a link.
    pub fn arrived(&mut self, stage: &mut Stage, link: LinkId) {
        if self.link != Some(link) {
            return;
        }
        let mut bytes = std::mem::take(&mut stage.buffer);
        let most = if stage.random.one_in(8) { stage.random.range(1, 64) } else { 65_536 };
        let pipe = &mut stage.network.link(link).to_device;
        pipe.read(most as usize, &mut bytes);
        if !bytes.is_empty() {
            stage.trace.bytes(&bytes);
            if let Some(heard) = &mut self.heard {
                heard.extend_from_slice(&bytes);
                if let Decoded::Frame(raw) = decode_frame(heard, limits::MAX_LARGE_FRAME_BYTES) {
                    if let Ok(Some(frame)) = raw.known()
                        && frame.kind == Kind::Welcome
                    {
                        self.welcome = frame.body().ok();
                    }
                    self.heard = None;
                }
            }
            let now_ms = self.now_ms(stage);
            match &mut self.doing {
                Doing::Runs(session) => session.receive(now_ms, &bytes),
                Doing::LogsIn(log_in) => log_in.input.extend_from_slice(&bytes),
                Doing::Off { .. } | Doing::Gone => {}
            }
        }
        stage.buffer = bytes;
        let pipe = &stage.network.link(link).to_device;
        if pipe.is_over() {
            self.lose_link(stage);
        } else if pipe.has_bytes() {
            stage.at(stage.now_us, Happening::AtDevice(link));
        }
        self.unblock_server(stage, link);
    }

    /// Room was made: the server may write again.
    fn unblock_server(&self, stage: &mut Stage, link: LinkId) {
        let connection = stage.network.link(link);
        if connection.blocked
            && let ServerEnd::At(_) = connection.server_end
        {
            connection.blocked = false;
            stage.at(stage.now_us, Happening::RoomForServer(link));
        }
    }

    fn lose_link(&mut self, stage: &mut Stage) {
        self.drop_link(stage);
        let now_ms = self.now_ms(stage);
        match &mut self.doing {
            Doing::Runs(session) => session.closed(now_ms),
            Doing::LogsIn(log_in) => log_in.wait_until_us = stage.now_us + 500_000,
            Doing::Off { .. } | Doing::Gone => {}
        }
    }

    /// Writes what the link takes.
    pub(super) fn write(&mut self, stage: &mut Stage, witness: &mut Witness) {
        let Some(link) = self.link else { return };
        let Doing::Runs(session) = &mut self.doing else { return };
        let output = session.output();
        if output.is_empty() {
            return;
        }
        let taken = stage.send_to_server(link, output);
        self.said.extend_from_slice(&output[..taken]);
        session.written(taken);
        if let Some(at) = self.at {
            self.note_acknowledgements(at, stage, witness);
        }
    }

    /// Finds in what was written how far the inbox was acknowledged.
    fn note_acknowledgements(&mut self, at: At, stage: &mut Stage, witness: &mut Witness) {
        let mut used = 0;
        while let Decoded::Frame(raw) = decode_frame(&self.said[used..], limits::MAX_FRAME_BYTES) {
            used += raw.size;
            let Ok(Some(frame)) = raw.known() else { continue };
            let cursor = match frame.kind {
                Kind::Ack => frame.body::<wire::Ack>().ok().and_then(|ack| ack.cursor),
                Kind::Hello => frame.body::<wire::Hello>().ok().and_then(|hello| hello.cursor),
                Kind::Sync => {
                    stage.coverage.reach(Branch::GapSynced);
                    None
                }
                _ => None,
            };
            if let Some(cursor) = cursor {
                witness.acknowledged(at, cursor.into());
            }
        }
        self.said.drain(..used);
    }
}
