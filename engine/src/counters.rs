//! What a shard counts, from the first day: plain integers, no atomics.

use starling_codec::{ErrorCode, Kind, wire::Counter};

/// Kind numbers are below this; checked when the engine's table of counters is made.
const KINDS: usize = 0x35;
/// Numbers of error codes are below this.
const CODES: usize = 72;

/// Frames of one kind in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub frames: u64,
    pub bytes: u64,
}

/// The counters of one engine. All but `connections`, `sessions`, `users` and
/// `unfinished_bytes` only rise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Open now.
    pub connections: u64,
    /// Connections that are sessions now.
    pub sessions: u64,
    /// Users that have a session here now.
    pub users: u64,
    pub opened: u64,
    /// Connections that came from, or went to, another shard.
    pub moved_in: u64,
    pub moved_out: u64,
    pub turns: u64,
    pub hops_in: u64,
    pub hops_out: u64,
    pub commands: u64,
    pub reads: u64,
    /// Deliveries that came as no more than a head.
    pub folded: u64,
    /// Outcomes and answers for a connection that was gone.
    pub late: u64,
    /// Cursors not stored, because too many waited already.
    pub dropped_cursors: u64,
    /// Events written to connections, and those of them that were read from the view, and that were
    /// copied as they had been encoded for another device of the user.
    pub events_out: u64,
    pub events_read: u64,
    pub events_repeated: u64,
    /// Connections closed because their unfinished input had waited longest when the shard held
    /// too much, and the bytes of it that the shard holds now.
    pub unfinished: u64,
    pub unfinished_bytes: u64,
    /// Messages parked for the check of their conversation.
    pub parked: u64,
    /// Fewest credits there ever were.
    pub credits_low: u64,
    /// Frames of a kind this version does not know, skipped.
    pub skipped: Traffic,
    frames_in: [Traffic; KINDS],
    frames_out: [Traffic; KINDS],
    refusals: [u64; CODES],
    closings: [u64; CODES],
}

impl Counters {
    pub(crate) fn new(credits: u32) -> Counters {
        Counters {
            connections: 0,
            sessions: 0,
            users: 0,
            opened: 0,
            moved_in: 0,
            moved_out: 0,
            turns: 0,
            hops_in: 0,
            hops_out: 0,
            commands: 0,
            reads: 0,
            folded: 0,
            late: 0,
            dropped_cursors: 0,
            events_out: 0,
            events_repeated: 0,
            events_read: 0,
            unfinished: 0,
            unfinished_bytes: 0,
            parked: 0,
            credits_low: u64::from(credits),
            skipped: Traffic::default(),
            frames_in: [Traffic::default(); KINDS],
            frames_out: [Traffic::default(); KINDS],
            refusals: [0; CODES],
            closings: [0; CODES],
        }
    }

    pub(crate) fn frame_in(&mut self, kind: Kind, bytes: usize) {
        let traffic = &mut self.frames_in[kind as usize];
        traffic.frames += 1;
        traffic.bytes += bytes as u64;
    }

    pub(crate) fn frame_out(&mut self, kind: Kind, bytes: usize) {
        self.frames_out(kind, 1, bytes);
    }

    pub(crate) fn frames_out(&mut self, kind: Kind, frames: u64, bytes: usize) {
        let traffic = &mut self.frames_out[kind as usize];
        traffic.frames += frames;
        traffic.bytes += bytes as u64;
    }

    pub(crate) fn refused(&mut self, code: ErrorCode) {
        self.refusals[code as usize] += 1;
    }

    pub(crate) fn closing(&mut self, code: ErrorCode) {
        self.closings[code as usize] += 1;
    }

    /// Frames of `kind` that came in.
    pub fn of_kind_in(&self, kind: Kind) -> Traffic {
        self.frames_in[kind as usize]
    }

    /// Frames of `kind` that went out.
    pub fn of_kind_out(&self, kind: Kind) -> Traffic {
        self.frames_out[kind as usize]
    }

    /// Sends, requests and openings refused with `code`.
    pub fn refusals(&self, code: ErrorCode) -> u64 {
        self.refusals[code as usize]
    }

    /// Connections closed with `code`.
    pub fn closings(&self, code: ErrorCode) -> u64 {
        self.closings[code as usize]
    }

    /// As the wire shows them; kinds and codes that never came up are left out.
    pub fn render(&self, source: &str) -> Vec<Counter> {
        let counter = |name: &str, part: &str, value: u64| Counter {
            name: name.into(),
            part: part.into(),
            source: source.into(),
            value,
        };
        let mut counters: Vec<Counter> = [
            ("connections", self.connections),
            ("sessions", self.sessions),
            ("users", self.users),
            ("opened", self.opened),
            ("moved_in", self.moved_in),
            ("moved_out", self.moved_out),
            ("turns", self.turns),
            ("hops_in", self.hops_in),
            ("hops_out", self.hops_out),
            ("commands", self.commands),
            ("reads", self.reads),
            ("folded", self.folded),
            ("late", self.late),
            ("dropped_cursors", self.dropped_cursors),
            ("events_out", self.events_out),
            ("events_read", self.events_read),
            ("events_repeated", self.events_repeated),
            ("closed_unfinished", self.unfinished),
            ("unfinished_bytes", self.unfinished_bytes),
            ("parked", self.parked),
            ("credits_low", self.credits_low),
            ("skipped_frames", self.skipped.frames),
            ("skipped_bytes", self.skipped.bytes),
        ]
        .into_iter()
        .map(|(name, value)| counter(name, "", value))
        .collect();
        for &kind in Kind::ALL {
            let tables = [("in", &self.frames_in), ("out", &self.frames_out)];
            for (way, Traffic { frames, bytes }) in tables.map(|(w, t)| (w, t[kind as usize])) {
                if frames > 0 {
                    counters.push(counter(&format!("frames_{way}"), kind.name(), frames));
                    counters.push(counter(&format!("bytes_{way}"), kind.name(), bytes));
                }
            }
        }
        for &code in ErrorCode::ALL {
            for (name, table) in [("refusals", &self.refusals), ("closings", &self.closings)] {
                if table[code as usize] > 0 {
                    counters.push(counter(name, code.name(), table[code as usize]));
                }
            }
        }
        counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_every_kind_and_code() {
        assert!(Kind::ALL.iter().all(|&kind| (kind as usize) < KINDS));
        assert!(ErrorCode::ALL.iter().all(|&code| (code as usize) < CODES));
    }

    #[test]
    fn what_happened_is_rendered_by_name() {
        let mut counters = Counters::new(4);
        counters.frame_in(Kind::Send, 100);
        counters.refused(ErrorCode::Overload);
        counters.closing(ErrorCode::Silent);
        let rendered = counters.render("shard 0");
        let value = |name: &str, part: &str| {
            rendered.iter().find(|c| c.name == name && c.part == part).map(|c| c.value)
        };
        assert_eq!(value("bytes_in", "SEND"), Some(100));
        assert_eq!(value("refusals", "OVERLOAD"), Some(1));
        assert_eq!(value("closings", "SILENT"), Some(1));
        assert_eq!(value("frames_in", "ACK"), None);
        assert!(rendered.iter().all(|counter| counter.source == "shard 0"));
    }
}
