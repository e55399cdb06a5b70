//! A link between clients and server that fails as links fail: it cuts, stalls and half-closes at
//! moments drawn from a seed, and loses what it held by then.

use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// Bytes of one direction between two faults.
const FUSE_BYTES: std::ops::Range<u64> = 200..60_000;
/// The longest stall.
const STALL_MS: u64 = 400;

#[derive(Clone)]
pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    upstream: Mutex<SocketAddr>,
    fair: AtomicBool,
    /// Rises when all links that are open are to be cut.
    cut_all: watch::Sender<u64>,
    /// What is put in the stead of what, the next time that it comes from the server.
    lie: Mutex<Option<[Vec<u8>; 2]>>,
    pub cuts: AtomicU64,
    pub half_closes: AtomicU64,
    pub stalls: AtomicU64,
}

enum Fault {
    Cut,
    HalfClose,
    Stall(Duration),
}

impl Proxy {
    pub async fn start(upstream: SocketAddr, seed: u64) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            upstream: Mutex::new(upstream),
            fair: AtomicBool::new(false),
            cut_all: watch::Sender::default(),
            lie: Mutex::new(None),
            cuts: AtomicU64::new(0),
            half_closes: AtomicU64::new(0),
            stalls: AtomicU64::new(0),
        });
        let proxy = Proxy { address, state };
        let accepting = proxy.clone();
        tokio::spawn(async move {
            let mut rng = StdRng::seed_from_u64(seed);
            while let Ok((client, _)) = listener.accept().await {
                let state = accepting.state.clone();
                tokio::spawn(carry(state, client, rng.random()));
            }
        });
        proxy
    }

    pub fn server(&self) -> String {
        self.address.to_string()
    }

    /// New links lead there.
    pub fn lead_to(&self, upstream: SocketAddr) {
        *self.state.upstream.lock().unwrap() = upstream;
    }

    /// No more faults.
    pub fn be_fair(&self) {
        self.state.fair.store(true, Ordering::Relaxed);
    }

    /// Cuts the links that are open now.
    pub fn cut(&self) {
        self.state.cut_all.send_modify(|times| *times += 1);
    }

    /// A planted fault: the next time that the server says the one, a client hears the other, which
    /// is as long.
    pub fn lie_once(&self, said: &str, heard: &str) {
        assert_eq!(said.len(), heard.len());
        *self.state.lie.lock().unwrap() = Some([said, heard].map(|text| text.as_bytes().to_vec()));
    }

    /// Whether the lie was told.
    pub fn has_lied(&self) -> bool {
        self.state.lie.lock().unwrap().is_none()
    }

    /// How often it cut, half-closed and stalled.
    pub fn faults(&self) -> [u64; 3] {
        let State { cuts, half_closes, stalls, .. } = &*self.state;
        [cuts, half_closes, stalls].map(|count| count.load(Ordering::Relaxed))
    }
}

impl State {
    fn tell_lie(&self, bytes: &mut [u8]) {
        let mut lie = self.lie.lock().unwrap();
        let Some([said, heard]) = &*lie else { return };
        if let Some(at) = bytes.windows(said.len()).position(|here| here == said) {
            bytes[at..at + heard.len()].copy_from_slice(heard);
            *lie = None;
        }
    }
}

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

async fn carry(state: Arc<State>, client: TcpStream, seed: u64) {
    let upstream = *state.upstream.lock().unwrap();
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    let mut rng = StdRng::seed_from_u64(seed);
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    // Dropped by whichever direction is cut, and seen by the other.
    let (cut, cut_seen) = watch::channel(false);
    let cut = Arc::new(cut);
    let (up_seed, down_seed) = (rng.random(), rng.random());
    let up = pump(
        (state.clone(), Way::Up),
        (client_in, server_out),
        up_seed,
        (cut.clone(), cut_seen.clone()),
    );
    let down = pump((state, Way::Down), (server_in, client_out), down_seed, (cut, cut_seen));
    tokio::join!(up, down);
}

/// Carries one direction until it ends or the link is cut.
async fn pump(
    (state, way): (Arc<State>, Way),
    (mut from, mut to): (OwnedReadHalf, OwnedWriteHalf),
    seed: u64,
    (cut, mut cut_seen): (Arc<watch::Sender<bool>>, watch::Receiver<bool>),
) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut buffer = vec![0; 4_096];
    let mut cut_all = state.cut_all.subscribe();
    let mut fuse = rng.random_range(FUSE_BYTES);
    loop {
        let most = rng.random_range(1..=buffer.len());
        let read = tokio::select! {
            read = from.read(&mut buffer[..most]) => read,
            _ = cut_seen.wait_for(|cut| *cut) => return,
            _ = cut_all.changed() => {
                // Both directions see it.
                let first = !cut.send_replace(true);
                state.cuts.fetch_add(u64::from(first), Ordering::Relaxed);
                return;
            }
        };
        let Ok(count @ 1..) = read else {
            // The end of a direction is the end of that direction.
            let _ = to.shutdown().await;
            return;
        };
        if way == Way::Down {
            state.tell_lie(&mut buffer[..count]);
        }
        let fair = state.fair.load(Ordering::Relaxed);
        if fair || fuse > count as u64 {
            fuse = fuse.saturating_sub(count as u64);
            if to.write_all(&buffer[..count]).await.is_err() {
                cut.send_replace(true);
                return;
            }
            continue;
        }
        // What is held beyond the fuse is lost with the link.
        let before = fuse as usize;
        let fault = match rng.random_range(0..10) {
            0..4 => Fault::Cut,
            4..6 => Fault::HalfClose,
            _ => Fault::Stall(Duration::from_millis(rng.random_range(1..STALL_MS))),
        };
        fuse = rng.random_range(FUSE_BYTES);
        match fault {
            Fault::Cut => {
                state.cuts.fetch_add(1, Ordering::Relaxed);
                let _ = to.write_all(&buffer[..before]).await;
                cut.send_replace(true);
                return;
            }
            Fault::HalfClose => {
                state.half_closes.fetch_add(1, Ordering::Relaxed);
                let _ = to.write_all(&buffer[..before]).await;
                let _ = to.shutdown().await;
                // The other direction goes on until its own end; this one swallows what comes.
                while let Ok(1..) = from.read(&mut buffer).await {}
                return;
            }
            Fault::Stall(time) => {
                state.stalls.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(time).await;
                if to.write_all(&buffer[..count]).await.is_err() {
                    cut.send_replace(true);
                    return;
                }
            }
        }
    }
}
