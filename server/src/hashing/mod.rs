//! Passwords are hashed and compared here, by a few threads and never on a shard. The pool is
//! bounded, its memory is taken at the start, and it slows down who guesses.

mod argon;
mod throttle;
mod work_queue;

use crate::{
    mesh::{Mesh, Reply},
    priority::{self, stand_back},
};
use argon::{Arena, DECOY};
use starling_codec::Origin;
use starling_engine::{HashDone, HashWork};
use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};
use throttle::Throttle;
use work_queue::WorkQueue;

/// What a client is told to wait when all queues are full, in milliseconds.
const BUSY_RETRY_AFTER_MS: u32 = 2_000;

/// Where shards leave passwords. The pool ends when the last handle is gone.
#[derive(Clone)]
pub struct HashingPool {
    queues: Arc<WorkQueues>,
    state: Arc<State>,
}

/// The queue of each thread of the pool, which close when it ends.
struct WorkQueues(Vec<Arc<WorkQueue>>);

impl Drop for WorkQueues {
    fn drop(&mut self) {
        self.0.iter().for_each(|queue| queue.close());
    }
}

struct State {
    mesh: Arc<Mesh>,
    throttle: Mutex<Throttle>,
    started: Instant,
    hashed: AtomicU64,
    slowed: AtomicU64,
    busy: AtomicU64,
}

impl HashingPool {
    /// The threads are the first repliers of the mesh.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(threads: usize, mesh: Arc<Mesh>) -> io::Result<HashingPool> {
        let state = Arc::new(State {
            mesh,
            throttle: Mutex::default(),
            started: Instant::now(),
            hashed: AtomicU64::new(0),
            slowed: AtomicU64::new(0),
            busy: AtomicU64::new(0),
        });
        let queue = || Arc::new(WorkQueue::new(state.mesh.shards()));
        let queues = WorkQueues((0..threads).map(|_| queue()).collect());
        for (number, queue) in queues.0.iter().enumerate() {
            let (own, state) = (Arc::clone(queue), Arc::clone(&state));
            let thread = std::thread::Builder::new()
                .name(format!("hashing-{number}"))
                .spawn(move || state.work(number, &own))?;
            queue.set_reader(thread.thread().clone());
        }
        Ok(HashingPool { queues: Arc::new(queues), state })
    }

    /// Puts work where least waits; what comes of it goes to the origin's shard, which is the one
    /// that calls.
    ///
    /// # Errors
    /// All queues are full; here is what to tell the client.
    pub fn queue(&self, origin: Origin, work: HashWork) -> Result<(), HashDone> {
        let least = self.queues.0.iter().min_by_key(|queue| queue.waiting());
        if least.is_some_and(|queue| queue.put(origin, work)) {
            return Ok(());
        }
        self.state.busy.fetch_add(1, Ordering::Relaxed);
        Err(HashDone::Busy { retry_after_ms: BUSY_RETRY_AFTER_MS })
    }

    /// Name and value of what the pool counts.
    pub fn counters(&self) -> [(&'static str, u64); 3] {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("passwords_hashed", value(&self.state.hashed)),
            ("passwords_slowed", value(&self.state.slowed)),
            ("passwords_refused_busy", value(&self.state.busy)),
        ]
    }
}

impl State {
    fn work(&self, number: usize, queue: &WorkQueue) {
        stand_back(priority::OF_HASHING);
        let mut arena = Arena::new();
        let mut last = 0;
        while let Some((origin, work)) = queue.next(last) {
            last = origin.shard;
            let done = match work {
                HashWork::Verify { name, password, phc } => {
                    self.verify(&mut arena, name, password.reveal(), phc.as_deref())
                }
                HashWork::Make { password } => {
                    self.hashed.fetch_add(1, Ordering::Relaxed);
                    arena.make(password.reveal().as_bytes()).map_or_else(
                        |error| {
                            tracing::error!(%error, "a password could not be hashed");
                            HashDone::Busy { retry_after_ms: BUSY_RETRY_AFTER_MS }
                        },
                        HashDone::Made,
                    )
                }
            };
            self.mesh.reply(number, origin.shard, Reply::Hashed(origin.key, done));
        }
    }

    fn verify(
        &self,
        arena: &mut Arena,
        name: String,
        password: &str,
        phc: Option<&str>,
    ) -> HashDone {
        if let Some(retry_after_ms) = self.throttle().must_wait(&name, self.now_ms()) {
            self.slowed.fetch_add(1, Ordering::Relaxed);
            return HashDone::Slowed { retry_after_ms };
        }
        self.hashed.fetch_add(1, Ordering::Relaxed);
        let right = arena.is_right(password.as_bytes(), phc.unwrap_or(DECOY)) && phc.is_some();
        if right {
            self.throttle().forget(&name);
            HashDone::Right
        } else {
            self.throttle().count_wrong(name, self.now_ms());
            HashDone::Wrong
        }
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        // A count may be lost to a panicking thread, no more.
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_engine::Secret;

    fn done_of(mesh: &Mesh) -> HashDone {
        loop {
            match mesh.port(0).pop_reply() {
                Some(Reply::Hashed(_, done)) => return done,
                Some(other) => panic!("{other:?}"),
                None => std::thread::yield_now(),
            }
        }
    }

    #[test]
    fn a_password_is_made_found_right_found_wrong_and_slowed() {
        let mesh = Arc::new(Mesh::new(1, 1, 1).unwrap());
        let pool = HashingPool::start(1, Arc::clone(&mesh)).unwrap();
        let ask = |work| {
            pool.queue(Origin { shard: 0, key: 1 }, work).unwrap();
            done_of(&mesh)
        };
        let secret = |text: &str| Secret::new(text.to_owned());
        let HashDone::Made(phc) = ask(HashWork::Make { password: secret("correct horse") }) else {
            panic!("not made")
        };
        assert!(phc.starts_with("$argon2id$v=19$m=12288,t=3,p=1$"), "{phc}");
        let verify = |password: &str, phc: Option<&String>| HashWork::Verify {
            name: "ada".into(),
            password: secret(password),
            phc: phc.cloned(),
        };
        assert_eq!(ask(verify("correct horse", Some(&phc))), HashDone::Right);
        for _ in 0..4 {
            assert_eq!(ask(verify("battery", Some(&phc))), HashDone::Wrong);
        }
        // Nobody's password is never right, even the decoy's own.
        assert_eq!(ask(verify("nobody's password", None)), HashDone::Wrong);
        let slowed = ask(verify("correct horse", Some(&phc)));
        assert!(matches!(slowed, HashDone::Slowed { .. }), "{slowed:?}");
    }

    #[test]
    fn a_full_queue_says_busy() {
        let mesh = Arc::new(Mesh::new(1, 1, 1).unwrap());
        let pool = HashingPool::start(1, Arc::clone(&mesh)).unwrap();
        let work = || HashWork::Make { password: Secret::new("correct horse".into()) };
        let busy = (0..200).find_map(|key| pool.queue(Origin { shard: 0, key }, work()).err());
        assert_eq!(busy, Some(HashDone::Busy { retry_after_ms: BUSY_RETRY_AFTER_MS }));
    }
}
