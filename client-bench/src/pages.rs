//! `starling-bench history`: how long a page of old messages takes, at random places of long
//! conversations. The conversations are written first, as far as they are not there yet.

use crate::{
    arguments::Target,
    caller::Caller,
    clock::Clock,
    content::Contents,
    interrupt,
    latency::{Latencies, Percentiles},
    machine::{self, Cpu, Machine},
    operator::{Operator, opening},
    report::{Report, line},
    roster::Roster,
    users::Users,
};
use anyhow::{Context, Result, ensure};
use prost::Message;
use rand::RngExt;
use serde::Serialize;
use starling_codec::{Kind, append_frame, limits, wire};
use std::{net::SocketAddr, time::Duration};

/// Messages of a writer that are without an answer, at most; half as many go out at once.
const UNDER_WAY: u64 = limits::MAX_SEND_SPAN + 1;

/// What is written and read.
#[derive(Clone, Debug)]
pub struct Plan {
    pub pairs: usize,
    pub messages_of_each: u64,
    pub payload_bytes: usize,
    /// Messages of a page.
    pub limit: u32,
    /// Who ask at the same time; no more than pairs.
    pub readers: usize,
    pub measured: Duration,
}

/// How long pages took.
#[derive(Clone, Debug, Serialize)]
pub struct Pages {
    pub machine: Machine,
    pub conversations: usize,
    /// Of all conversations, and how many of them this run wrote.
    pub messages: u64,
    pub written: u64,
    pub write_seconds: f64,
    pub limit: u32,
    pub readers: usize,
    pub pages: u64,
    pub pages_per_s: f64,
    pub messages_per_page: f64,
    /// From the question to the last byte of the page.
    pub latency: Percentiles,
    /// Pages that were not exactly the messages asked for, each once and in order.
    pub gaps: u64,
    /// Of all pages, those that went to a reader thread, as what they needed was not in memory.
    pub share_of_reader_threads: f64,
    pub server_cpu_us_per_page: Option<f64>,
}

/// Writes what is missing and asks for pages.
///
/// # Errors
/// The server cannot be reached, or refuses.
pub fn run(target: &Target, plan: &Plan) -> Result<Pages> {
    interrupt::listen()?;
    machine::raise_file_limit()?;
    let mut operator = Operator::connect(target.server, &target.operator_key)?;
    let mut users = Users::open_or_cached(target.users.as_deref(), &target.operator_key)?;
    users.ensure(2 * plan.pairs, &mut operator)?;
    let clock = Clock::start();
    let (mut conversations, mut written) = (Vec::new(), 0);
    for pair in 0..plan.pairs {
        let mut conversation = Conversation::open(target.server, &users.list, pair)?;
        written += conversation.fill(plan, pair)?;
        ensure!(!interrupt::requested(), "interrupted while messages were written");
        conversations.push(conversation);
    }
    let messages = conversations.iter().map(|conversation| conversation.last).sum();
    let write_seconds = seconds(clock.now_ns());

    let counted = operator.counters()?;
    let begun = Cpu::now(target.server_pid)?;
    let begun_ns = clock.now_ns();
    let read = read_all(conversations, plan, clock)?;
    let elapsed = seconds(clock.now_ns() - begun_ns);
    let cpu = Cpu::now(target.server_pid)?.since(begun);
    let risen = operator.counters()?.since(&counted);
    let pages = read.latencies.count();
    let each = |value: f64| value / pages.max(1) as f64;
    Ok(Pages {
        machine: Machine::this()?,
        conversations: plan.pairs,
        messages,
        written,
        write_seconds,
        limit: plan.limit,
        readers: plan.readers,
        pages,
        pages_per_s: pages as f64 / elapsed,
        messages_per_page: each(read.messages as f64),
        latency: read.latencies.percentiles(),
        gaps: read.gaps,
        share_of_reader_threads: each(risen.get("shard questions_later") as f64),
        server_cpu_us_per_page: cpu.server_s.map(|server_s| each(1e6 * server_s)),
    })
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[derive(Default)]
struct Read {
    latencies: Latencies,
    messages: u64,
    gaps: u64,
}

/// Each reader has its share of the conversations, and a thread.
fn read_all(conversations: Vec<Conversation>, plan: &Plan, clock: Clock) -> Result<Read> {
    let mut shares: Vec<Vec<Conversation>> = (0..plan.readers).map(|_| Vec::new()).collect();
    for (index, conversation) in conversations.into_iter().enumerate() {
        shares[index % plan.readers].push(conversation);
    }
    let until_ns = clock.now_ns() + crate::clock::ns(plan.measured);
    let parts: Vec<Result<Read>> = std::thread::scope(|scope| {
        let read = |share| scope.spawn(move || read_some(share, plan, clock, until_ns));
        let threads: Vec<_> = shares.into_iter().map(read).collect();
        // A reader that panicked takes this thread with it.
        threads.into_iter().map(|thread| thread.join().expect("a reader")).collect()
    });
    let mut whole = Read::default();
    for part in parts {
        let part = part?;
        whole.latencies.merge(&part.latencies);
        whole.messages += part.messages;
        whole.gaps += part.gaps;
    }
    Ok(whole)
}

fn read_some(
    mut share: Vec<Conversation>,
    plan: &Plan,
    clock: Clock,
    until_ns: u64,
) -> Result<Read> {
    let mut read = Read::default();
    let mut random = rand::rng();
    while clock.now_ns() < until_ns && !interrupt::requested() {
        let index = random.random_range(0..share.len());
        let conversation = &mut share[index];
        // Below this one stands a message at least.
        let before = random.random_range(2..=conversation.last + 1);
        let asked_ns = clock.now_ns();
        let page = conversation.page(Some(before), plan.limit)?;
        read.latencies.record(clock.now_ns() - asked_ns);
        read.messages += page.messages.len() as u64;
        read.gaps += u64::from(!is_whole(&page, before, plan.limit));
    }
    Ok(read)
}

/// Whether a page is exactly the messages below `before`, down to the first of it. It may have
/// fewer than asked for, as a server bounds its bytes.
fn is_whole(page: &wire::HistoryPage, before: u64, limit: u32) -> bool {
    let Some(first) = page.messages.first().map(|message| message.seq) else { return false };
    let seqs = page.messages.iter().map(|message| message.seq);
    let bounded = before - first.min(before) <= u64::from(limit);
    bounded && first > 0 && seqs.eq(first..before) && page.more == (first > 1)
}

/// A session of one of the two, who writes to the other and reads what was written.
struct Conversation {
    caller: Caller,
    other: u32,
    /// The number of the next message of this device.
    next_no: u64,
    /// The seq of the newest message.
    last: u64,
}

impl Conversation {
    /// Logs the first user of a pair in, and asks how long the conversation is.
    fn open(server: SocketAddr, roster: &Roster, pair: usize) -> Result<Conversation> {
        let (user, other) = (&roster.users[2 * pair], roster.users[2 * pair + 1].user);
        // It rises from run to run.
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        let hello = wire::Hello {
            opening: Some(opening()),
            token: roster.token(user).to_vec().into(),
            connect_no: now.as_millis() as u64,
            // It may say nothing for long.
            heartbeat_min_s: limits::MAX_HEARTBEAT_S,
            heartbeat_max_s: limits::MAX_HEARTBEAT_S,
            // It takes no events, or as few as may be.
            window_events: 1,
            window_bytes: 1,
            ..wire::Hello::default()
        };
        let mut caller = Caller::connect(server)?;
        caller.tell(Kind::Hello, &hello)?;
        let welcome: wire::Welcome =
            caller.answer(Kind::Welcome, |frame| Ok(Some(frame.body()?)))?;
        let next_no = welcome.window.unwrap_or_default().highest + 1;
        let mut conversation = Conversation { caller, other, next_no, last: 0 };
        let newest = conversation.page(None, 1)?;
        conversation.last = newest.messages.last().map_or(0, |message| message.seq);
        Ok(conversation)
    }

    /// The messages below `before`, or the newest.
    fn page(&mut self, before: Option<u64>, limit: u32) -> Result<wire::HistoryPage> {
        let request_id = self.caller.next_request();
        let question = wire::History {
            request_id,
            of: Some(wire::history::Of::User(self.other)),
            start: before.map(wire::history::Start::BeforeSeq),
            limit,
        };
        self.caller.tell(Kind::History, &question)?;
        self.caller.answer(Kind::HistoryPage, |frame| {
            let page: wire::HistoryPage = frame.body()?;
            Ok((page.request_id == request_id).then_some(page))
        })
    }

    /// Writes what is missing; how much that was.
    fn fill(&mut self, plan: &Plan, pair: usize) -> Result<u64> {
        let missing = plan.messages_of_each.saturating_sub(self.last);
        let contents = Contents::new(rand::random(), pair);
        let (mut sent, mut answered) = (0, 0);
        let (mut frames, mut payload) = (Vec::new(), Vec::new());
        while answered < missing {
            frames.clear();
            while sent < missing && sent < answered + UNDER_WAY {
                payload.clear();
                contents.append(sent, plan.payload_bytes, &mut payload);
                let kind = Some(wire::content::Kind::Opaque(payload.clone().into()));
                let content = wire::Content { kind, ..wire::Content::default() };
                let send = wire::Send {
                    send_no: self.next_no + sent,
                    nonce: contents.nonce(sent),
                    oldest: self.next_no + answered,
                    to: Some(wire::send::To::User(self.other)),
                    class: wire::Class::Buffered.into(),
                    content: content.encode_to_vec().into(),
                    trace_id: 0,
                };
                append_frame(&mut frames, Kind::Send, &send);
                sent += 1;
            }
            self.caller.send(&frames)?;
            while answered < sent && (sent == missing || sent - answered > UNDER_WAY / 2) {
                let ack: wire::SendAck = self
                    .caller
                    .answer(Kind::SendAck, |frame| Ok(Some(frame.body()?)))
                    .context("while messages were written")?;
                ensure!(ack.send_no == self.next_no + answered, "answers come out of order");
                answered += 1;
                self.last = ack.seq;
            }
        }
        self.next_no += missing;
        Ok(missing)
    }
}

impl Report for Pages {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let us = self.server_cpu_us_per_page;
        vec![
            (
                "messages",
                format!(
                    "{} in {} conversations; {} written in {:.0} s",
                    self.messages, self.conversations, self.written, self.write_seconds
                ),
            ),
            ("pages", format!("{} of {:.0} messages each", self.pages, self.messages_per_page)),
            ("pages a second", format!("{:.0}", self.pages_per_s)),
            ("a page", line(&self.latency)),
            ("by a reader thread", format!("{:.0} %", 100.0 * self.share_of_reader_threads)),
            ("gaps", self.gaps.to_string()),
            ("server CPU a page", us.map_or("unknown".into(), |us| format!("{us:.1} us"))),
        ]
    }

    fn valid(&self) -> bool {
        self.gaps == 0 && self.pages > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_whole_only_if_it_is_what_was_asked_for() {
        let page = |seqs: &[u64], more| wire::HistoryPage {
            messages: seqs.iter().map(|&seq| wire::Message { seq, ..Default::default() }).collect(),
            more,
            ..Default::default()
        };
        assert!(is_whole(&page(&[7, 8, 9], true), 10, 3));
        assert!(is_whole(&page(&[1, 2], false), 3, 3));
        assert!(is_whole(&page(&[8, 9], true), 10, 3));
        for (seqs, more) in [
            (&[7, 9][..], true),
            (&[7, 8, 8, 9], true),
            (&[8, 7, 9], true),
            (&[7, 8], true),
            (&[6, 7, 8, 9], true),
            (&[7, 8, 9], false),
            (&[], true),
        ] {
            assert!(!is_whole(&page(seqs, more), 10, 3), "{seqs:?}");
        }
    }
}
