//! Two thousand clients at once that mean no good, and people who talk meanwhile.
//!
//! Quiet and hostile windows take turns in one run, and people talk at the same rate in all of
//! them: half of the quiet time lies on either side of each hostile window, so whatever else the
//! machine does meets both alike. The server has a processor of its own; people and foes share the
//! others, and foes have only what people leave: it is the server that is on trial, not the
//! processor that both need.
//!
//! Judged are what people wait, p99 of each hostile window against that of the quiet ones around
//! it, by the median of the windows; and how much larger the server is than it was before any foe
//! came, but after people had logged in: in the first window as the kernel counts it, and in all
//! windows without the memtables, which grow with every message until they are full. Where other
//! programs want the processors too, what people wait says nothing about the server, and is told
//! but not judged.

mod common;
mod faults;

use common::{Server, command};
use faults::{
    foes::{self, Arena, Endings, MANNERS, Manner},
    memory_of,
    people::{Person, text, within},
    processors::{Watch, Watched, first_and_others, stay_on},
};
use starling_client::operator::{CreatedUser, Operator};
use starling_codec::{ErrorCode, wire::Class};
use std::{
    ops::Range,
    os::unix::process::CommandExt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const FOES: usize = 2_000;
const WINDOWS: usize = 3;
/// Longer than a server waits for HELLO.
const HOSTILE: Duration = Duration::from_secs(30);
const QUIET: Duration = Duration::from_secs(6);
const PAIRS: usize = 4;
/// A message of each pair in so long, now of the one and now of the other.
const INTERVAL: Duration = Duration::from_millis(20);
const MAX_GROWTH_BYTES: u64 = 16 << 20;
/// On a quiet machine it is 1.1 to 1.3 (see docs/testing.md); it was 83 without budgets for those who
/// only cost.
const MAX_TIMES_AS_LONG: f64 = 2.0;
/// Share of the processors that others, programs and guests of the host, may have for waits to be
/// judged.
const MAX_OF_OTHERS: f64 = 0.02;

/// One message: when it was due, and how long it took to be told to the other.
#[derive(Clone)]
struct Sample {
    due: Instant,
    took: Duration,
}

impl Sample {
    fn overlaps(&self, ranges: &[Range<Instant>]) -> bool {
        let end = self.due + self.took;
        ranges.iter().any(|range| range.start < end && self.due < range.end)
    }
}

#[test]
fn two_thousand_hostile_clients_harm_nobody() {
    // What a build before left to be written would come to the disk in the midst of a window, and
    // every sync of the server would wait behind it.
    std::process::Command::new("sync").status().unwrap();
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let mut operator = WaitedOperator::of(&server);
    let users = operator.make_users();
    let pairs = Talk::start(server.address.to_string());

    let mut hostile: Vec<Range<Instant>> = Vec::new();
    let mut endings = Endings::new();
    thread::sleep(Duration::from_secs(2));
    let watch = Watch::start(server.pid());
    let mut quiet = vec![window(QUIET)];
    let mut memory = Memory::of(&server, &mut operator);
    for number in 0..WINDOWS {
        hostile.push(hostile_window(&server, &users, number, &mut endings, &mut memory));
        memory.note_own(&mut operator);
        // Two quiet windows between two hostile ones, a half for each.
        quiet.push(window(if number + 1 < WINDOWS { 2 * QUIET } else { QUIET }));
    }
    let watched = watch.end();
    let samples = pairs.end();
    println!("{endings:#?}");
    check(&endings);
    memory.judge();
    judge_waits(samples, &hostile, &quiet, &watched);
    server.end();
}

/// Lets the foes loose and, once they are all there, lets them be for [`HOSTILE`].
fn hostile_window(
    server: &Server,
    users: &[CreatedUser],
    number: usize,
    endings: &mut Endings,
    memory: &mut Memory,
) -> Range<Instant> {
    let arena = Arc::new(Arena::new(server.address));
    let crowd = release(&arena, users, number as u64);
    wait_until(|| arena.is_full(FOES));
    let begin = Instant::now();
    while begin.elapsed() < HOSTILE || !all_silent_ones_were_closed(&arena) {
        thread::sleep(Duration::from_secs(1));
        memory.note(number);
    }
    let end = Instant::now();
    arena.stop.store(true, Ordering::Relaxed);
    crowd.join().unwrap();
    println!("window {number}: {} answers", arena.answers.load(Ordering::Relaxed));
    for (ending, count) in arena.endings.lock().unwrap().iter() {
        *endings.entry(*ending).or_default() += count;
    }
    begin..end
}

/// By how much the server grew, in bytes.
struct Memory {
    server: i32,
    /// Before any foe came.
    before: u64,
    own_before: u64,
    /// The most in the first hostile window.
    first: u64,
    /// The most at the end of any, without what the store keeps for a while.
    own: u64,
}

impl Memory {
    fn of(server: &Server, operator: &mut WaitedOperator) -> Memory {
        let before = memory_of(server.pid());
        let own = before.saturating_sub(operator.store_memory());
        Memory { server: server.pid(), before, own_before: own, first: before, own }
    }

    fn note(&mut self, window: usize) {
        if window == 0 {
            self.first = self.first.max(memory_of(self.server));
        }
    }

    fn note_own(&mut self, operator: &mut WaitedOperator) {
        let own = memory_of(self.server).saturating_sub(operator.store_memory());
        self.own = self.own.max(own);
    }

    fn judge(&self) {
        let (grown, own) = (self.first - self.before, self.own - self.own_before);
        println!(
            "the server grew by {} KiB in {HOSTILE:?} above {}, without memtables in all windows \
             by {}",
            grown >> 10,
            self.before >> 10,
            own >> 10
        );
        assert!(grown < MAX_GROWTH_BYTES, "the server grew by {grown} bytes");
        assert!(own < MAX_GROWTH_BYTES, "without memtables it grew by {own} bytes");
    }
}

fn judge_waits(
    mut samples: Vec<Sample>,
    hostile: &[Range<Instant>],
    quiet: &[Range<Instant>],
    watched: &Watched,
) {
    let taken = watched.taken_by_the_host();
    let others = watched.share_of_others();
    let is_judged = others <= MAX_OF_OTHERS;
    if is_judged {
        samples.retain(|sample| !sample.overlaps(taken));
    }
    let times = times_as_long(&samples, hostile, quiet);
    println!("times as long, ascending: {times:.2?}");
    if is_judged {
        let median = times[WINDOWS / 2];
        assert!(median <= MAX_TIMES_AS_LONG, "people waited {median:.2} times as long");
    } else {
        println!("waits are not judged: others had {:.1} % of the processors", 100.0 * others);
    }
}

/// How many times as long people waited in each hostile window, ascending.
fn times_as_long(
    samples: &[Sample],
    hostile: &[Range<Instant>],
    quiet: &[Range<Instant>],
) -> Vec<f64> {
    let mut times: Vec<f64> = Vec::new();
    for (index, window) in hostile.iter().enumerate() {
        // The quiet time between two hostile windows lies after the one and before the other.
        let with = percentile(samples, std::slice::from_ref(window));
        let without = percentile(samples, &quiet[index..index + 2]);
        times.push(with.as_secs_f64() / without.as_secs_f64());
        println!("window {index}: p99 {with:?} among foes, {without:?} without");
    }
    times.sort_unstable_by(f64::total_cmp);
    times
}

/// Each was told why, of those that could hear it, and for a reason that fits.
fn check(endings: &Endings) {
    use ErrorCode::*;
    for (&(manner, told), &count) in endings {
        let Some(code) = told else {
            assert!(!manner.hears_why(), "{count} of {manner:?} were not told why");
            continue;
        };
        let fits: &[ErrorCode] = match manner {
            Manner::Garbage | Manner::Endless => {
                &[BadFrame, FrameTooLarge, BadMagic, WrongState, VersionUnsupported]
            }
            // It may be the beginning of a frame.
            Manner::GarbageInSession => &[
                BadFrame,
                FrameTooLarge,
                BadMagic,
                WrongState,
                BadField,
                SendSpan,
                Silent,
                Overload,
            ],
            Manner::LargeOpener | Manner::LargeFrame => &[FrameTooLarge],
            Manner::Silent | Manner::Loris => &[],
            Manner::FastLogins => &[RateLimited],
            Manner::FastSends | Manner::FastPings => &[RateLimited, Overload],
            Manner::HalfFrame => &[Silent, Overload],
            Manner::FastUnread => &[RateLimited, Overload, Silent],
        };
        // Any of them may get no processor for so long that its opener comes too late.
        assert!(
            code == OpeningTimeout || fits.contains(&code),
            "{count} of {manner:?} were told {code}"
        );
    }
    for manner in MANNERS {
        let ended = |told: bool| {
            endings.keys().any(|(found, code)| *found == manner && code.is_some() == told)
        };
        assert!(ended(true) || ended(false), "{manner:?} was never closed");
        assert!(ended(true) || !manner.reads(), "{manner:?} was never told why");
    }
}

fn all_silent_ones_were_closed(arena: &Arena) -> bool {
    let endings = arena.endings.lock().unwrap();
    let of = |manner: Manner| -> u64 {
        endings.iter().filter(|((found, _), _)| *found == manner).map(|(_, count)| count).sum()
    };
    let each = (FOES / MANNERS.len()) as u64;
    of(Manner::Silent) >= each && of(Manner::Loris) >= each
}

fn window(length: Duration) -> Range<Instant> {
    let begin = Instant::now();
    thread::sleep(length);
    begin..Instant::now()
}

fn percentile(samples: &[Sample], windows: &[Range<Instant>]) -> Duration {
    let inside =
        samples.iter().filter(|sample| windows.iter().any(|window| window.contains(&sample.due)));
    let mut took: Vec<Duration> = inside.map(|sample| sample.took).collect();
    took.sort_unstable();
    assert!(took.len() >= 100, "too few samples");
    took[took.len() * 99 / 100]
}

fn wait_until(holds: impl Fn() -> bool) {
    let until = Instant::now() + common::PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "it does not come to that");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The server on the first processor.
fn start(data: &std::path::Path) -> Server {
    let mut command = command();
    command.arg("--data").arg(data).args(["--shards", "1", "--sends-per-second", "30"]);
    let (first, _) = first_and_others();
    // SAFETY: sched_setaffinity may be called between fork and exec, and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            stay_on(&first);
            Ok(())
        })
    };
    let server = Server::start_command(command, data);
    let (_, others) = first_and_others();
    stay_on(&others);
    server
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// An operator whom a thread waits for, connected before any foe is: to come in among them may take
/// long on a machine that others keep busy.
struct WaitedOperator {
    runtime: tokio::runtime::Runtime,
    operator: Operator,
}

impl WaitedOperator {
    fn of(server: &Server) -> WaitedOperator {
        let runtime = runtime();
        let address = server.address.to_string();
        let key = server.operator_key();
        let operator = runtime.block_on(Operator::connect(&address, &key)).unwrap();
        WaitedOperator { runtime, operator }
    }

    /// Bytes of the store's memtables and block cache, as it says itself.
    fn store_memory(&mut self) -> u64 {
        let counters = self.runtime.block_on(self.operator.stats()).unwrap();
        let of_store = ["memtable_bytes", "block_cache_bytes"];
        counters
            .iter()
            .filter(|counter| of_store.contains(&counter.name.as_str()))
            .map(|counter| counter.value)
            .sum()
    }

    fn make_users(&mut self) -> Vec<CreatedUser> {
        let names: Vec<String> = (0..FOES).map(|number| format!("foe{number}")).collect();
        self.runtime.block_on(self.operator.create_users(&names)).unwrap()
    }
}

/// Lets the foes loose, in a thread that gives way to people, and once they are there has no more
/// of the processor than what others leave.
fn release(arena: &Arc<Arena>, users: &[CreatedUser], seed: u64) -> thread::JoinHandle<()> {
    let (arena, users) = (arena.clone(), users.to_vec());
    thread::spawn(move || {
        // SAFETY: setpriority takes no pointer; on Linux 0 is the calling thread.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
        runtime().block_on(async {
            let mut crowd = tokio::task::JoinSet::new();
            for (index, user) in users.into_iter().enumerate() {
                let manner = MANNERS[index % MANNERS.len()];
                let seed = seed << 32 | index as u64;
                crowd.spawn(foes::be(arena.clone(), manner, seed, user.user.0, user.token));
            }
            while !arena.is_full(FOES) && !arena.stop.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let nothing = libc::sched_param { sched_priority: 0 };
            // SAFETY: the pointer is to a local; 0 is the calling thread.
            assert_eq!(unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &nothing) }, 0);
            crowd.join_all().await;
        });
    })
}

/// Pairs of people who write to each other at an even pace, in a thread of their own.
struct Talk {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Vec<Sample>>,
}

impl Talk {
    /// Returns when all are there.
    fn start(server: String) -> Talk {
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, is_ready) = std::sync::mpsc::channel();
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            runtime().block_on(async move {
                let mut pairs = Vec::new();
                for number in 0..PAIRS {
                    let [one, other] = ["ada", "bob"].map(|name| format!("{name}{number}"));
                    pairs.push([
                        Person::new(&server, &one, 1).await,
                        Person::new(&server, &other, 1).await,
                    ]);
                }
                ready.send(()).unwrap();
                let begin = Instant::now();
                let mut talks = tokio::task::JoinSet::new();
                for (pair, number) in pairs.into_iter().zip(0..) {
                    let begin = begin + INTERVAL * number / PAIRS as u32;
                    talks.spawn(talk(pair, begin, stopped.clone()));
                }
                talks.join_all().await.concat()
            })
        });
        is_ready.recv().unwrap();
        Talk { stop, thread }
    }

    fn end(self) -> Vec<Sample> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

async fn talk(people: [Person; 2], begin: Instant, stop: Arc<AtomicBool>) -> Vec<Sample> {
    let mut sent: Vec<Instant> = Vec::new();
    let heard: Vec<_> = people.iter().map(|person| person.devices[0].hear()).collect();
    let mut number = 0u32;
    while !stop.load(Ordering::Relaxed) {
        let due = begin + INTERVAL * number;
        tokio::time::sleep_until(due.into()).await;
        let (from, to) = (number as usize % 2, (number as usize + 1) % 2);
        sent.push(due);
        let message = text(people[to].user, &number.to_string(), Class::Durable);
        people[from].devices[0].client.post(message).await.unwrap();
        number += 1;
    }
    for person in &people {
        within("all is acknowledged", person.devices[0].client.flushed()).await;
    }
    let mut samples = Vec::new();
    for (index, heard) in heard.iter().enumerate() {
        let from = (index + 1) % 2;
        let expected = (from..sent.len()).step_by(2);
        wait_for(heard, expected.len()).await;
        let heard = heard.lock().unwrap();
        // Each once, in the order in which it was written.
        let numbers: Vec<usize> = heard.iter().map(|(body, _)| body.parse().unwrap()).collect();
        assert_eq!(numbers, expected.collect::<Vec<_>>());
        for (number, (_, at)) in numbers.iter().zip(heard.iter()) {
            let due = sent[*number];
            samples.push(Sample { due, took: at.saturating_duration_since(due) });
        }
    }
    samples
}

async fn wait_for(heard: &Mutex<Vec<(String, Instant)>>, count: usize) {
    let until = Instant::now() + common::PATIENCE;
    while heard.lock().unwrap().len() < count {
        assert!(Instant::now() < until, "messages are missing");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
