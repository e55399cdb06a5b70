//! Looks at the server and the machine once a second, from a thread of its own, so that the load
//! does not wait for it.

use crate::{
    arguments::Target,
    machine::{self, Cpu},
    operator::{Counters, Operator},
};
use serde::Serialize;
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

const EVERY: Duration = Duration::from_secs(1);
/// The end is looked for this often.
const STEP: Duration = Duration::from_millis(20);

/// How it was for a second.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Since the phases began.
    pub at_s: f64,
    pub server_cores: Option<f64>,
    pub machine_cores: f64,
    pub generator_cores: f64,
    /// Resident memory of the server.
    pub server_bytes: Option<u64>,
    pub connections: u64,
    /// Commands of a commit, and commands made durable by a sync, on the average.
    pub commands_per_batch: Option<f64>,
    pub commands_per_sync: Option<f64>,
}

/// The thread, once it was started.
pub struct Sampler {
    server: SocketAddr,
    operator_key: PathBuf,
    server_pid: Option<u32>,
    done: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<Vec<Sample>>>>,
}

impl Sampler {
    pub fn new(target: &Target) -> Sampler {
        Sampler {
            server: target.server,
            operator_key: target.operator_key.clone(),
            server_pid: target.server_pid,
            done: Arc::default(),
            thread: Mutex::new(None),
        }
    }

    /// The phases begin.
    pub fn start(&self) {
        let mut place = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if place.is_some() {
            return;
        }
        let (server, key, pid) = (self.server, self.operator_key.clone(), self.server_pid);
        let done = self.done.clone();
        *place = Some(thread::spawn(move || {
            // Without the server there are no samples, and the load tells why.
            let Ok(mut operator) = Operator::connect(server, &key) else { return Vec::new() };
            sample(&mut operator, pid, &done)
        }));
    }

    pub fn finish(self) -> Vec<Sample> {
        self.done.store(true, Ordering::Relaxed);
        let thread = self.thread.into_inner().unwrap_or_else(PoisonError::into_inner);
        thread.and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

fn sample(operator: &mut Operator, pid: Option<u32>, done: &AtomicBool) -> Vec<Sample> {
    let begun = Instant::now();
    let mut samples = Vec::new();
    let now = |operator: &mut Operator| Some((Cpu::now(pid).ok()?, operator.counters().ok()?));
    let Some(mut last) = now(operator) else { return samples };
    let mut last_at = begun;
    while !done.load(Ordering::Relaxed) {
        if last_at.elapsed() < EVERY {
            thread::sleep(STEP);
            continue;
        }
        let (at, Some(next)) = (Instant::now(), now(operator)) else { return samples };
        let span_s = (at - last_at).as_secs_f64();
        let risen = next.1.since(&last.1);
        samples.push(Sample::of(
            begun.elapsed(),
            next.0.since(last.0),
            span_s,
            &risen,
            &next.1,
            pid,
        ));
        (last, last_at) = (next, at);
    }
    samples
}

impl Sample {
    fn of(
        at: Duration,
        cpu: Cpu,
        span_s: f64,
        risen: &Counters,
        now: &Counters,
        pid: Option<u32>,
    ) -> Sample {
        let commands = risen.get("committer commands") as f64;
        let per = |count: u64| (count > 0).then(|| commands / count as f64);
        Sample {
            at_s: at.as_secs_f64(),
            server_cores: cpu.server_s.map(|cpu_s| cpu_s / span_s),
            machine_cores: cpu.machine_s / span_s,
            generator_cores: cpu.own_s / span_s,
            server_bytes: pid.and_then(|pid| machine::resident_bytes(pid).ok()),
            connections: now.get("shard connections"),
            commands_per_batch: per(risen.get("committer batches")),
            commands_per_sync: per(risen.get("committer syncs")),
        }
    }
}
