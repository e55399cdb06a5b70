//! Clients that mean no good: garbage, too much, too fast, nothing at all.

use crate::common::wire::{hello, login, send_to};
use bytes::Bytes;
use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng};
use starling_codec::{
    Decoded, ErrorCode, Kind, append_frame, append_header, append_ping, decode_frame,
    limits::{MAX_FRAME_BYTES, MAX_LARGE_FRAME_BYTES, MAX_OPENING_FRAME_BYTES},
    wire,
};
use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpStream, time::sleep};

/// What a client does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Manner {
    /// Random bytes instead of an opener.
    Garbage,
    /// Random bytes once it is a session.
    GarbageInSession,
    /// An opener larger than may be.
    LargeOpener,
    /// Bytes without end.
    Endless,
    /// A frame of a session larger than may be.
    LargeFrame,
    /// The first part of a large frame, and never the rest.
    HalfFrame,
    /// Sends, far above the rate that is allowed, and reads what comes of it.
    FastSends,
    /// Heartbeats as fast as they go, read.
    FastPings,
    /// Heartbeats and history as fast as they go, and reads nothing.
    FastUnread,
    /// Passwords.
    FastLogins,
    /// Nothing at all.
    Silent,
    /// A byte of an opener now and then.
    Loris,
}

pub const MANNERS: [Manner; 12] = [
    Manner::Garbage,
    Manner::GarbageInSession,
    Manner::LargeOpener,
    Manner::Endless,
    Manner::LargeFrame,
    Manner::HalfFrame,
    Manner::FastSends,
    Manner::FastPings,
    Manner::FastUnread,
    Manner::FastLogins,
    Manner::Silent,
    Manner::Loris,
];

impl Manner {
    pub fn needs_session(self) -> bool {
        use Manner::*;
        matches!(
            self,
            GarbageInSession | LargeFrame | HalfFrame | FastSends | FastPings | FastUnread
        )
    }

    /// Whether it would find a reason, if it is not thrown away.
    pub fn reads(self) -> bool {
        self != Manner::FastUnread
    }

    /// Whether it has said all it will say by the time the server closes, and reads. Of one that
    /// still writes the kernel may throw the reason away, with what else it has not read; and
    /// garbage in a session may say DISHELLO, which is answered by the end alone. One that drips
    /// may do so just then.
    pub fn hears_why(self) -> bool {
        use Manner::*;
        matches!(self, Garbage | LargeOpener | LargeFrame | Silent)
    }
}

/// How connections ended that the server closed: told why, or (`None`) not.
pub type Endings = BTreeMap<(Manner, Option<ErrorCode>), u64>;

/// What all foes share.
pub struct Arena {
    pub address: SocketAddr,
    pub stop: AtomicBool,
    pub endings: Mutex<Endings>,
    /// Connections open now.
    pub open: AtomicU64,
    /// Frames that came back to those that are fast.
    pub answers: AtomicU64,
}

impl Arena {
    pub fn new(address: SocketAddr) -> Arena {
        Arena {
            address,
            stop: AtomicBool::new(false),
            endings: Mutex::default(),
            open: AtomicU64::new(0),
            answers: AtomicU64::new(0),
        }
    }

    /// Most are there. Of those that are closed at once and come again, many are always on their
    /// way, so that nearly all are never seen together in some runs.
    pub fn is_full(&self, foes: usize) -> bool {
        self.open.load(Ordering::Relaxed) as usize >= foes * 3 / 4
    }

    fn over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    async fn until_over(&self) {
        while !self.over() {
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// One place among the foes: whenever the server closes it, it comes back.
pub async fn be(arena: Arc<Arena>, manner: Manner, seed: u64, user: u32, token: Bytes) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut foe = Foe { arena: arena.clone(), input: Vec::new(), told: None };
    let mut connect_no = 0;
    while !arena.over() {
        connect_no += 1;
        let Ok(stream) = TcpStream::connect(arena.address).await else {
            sleep(Duration::from_millis(500)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        arena.open.fetch_add(1, Ordering::Relaxed);
        (foe.told, foe.input) = (None, Vec::new());
        let mut opener = Vec::new();
        if manner.needs_session() {
            append_frame(&mut opener, Kind::Hello, &hello(&token, connect_no));
        }
        tokio::select! {
            _ = foe.act(&stream, manner, &mut random, opener, user) => {
                *arena.endings.lock().unwrap().entry((manner, foe.told)).or_default() += 1;
            }
            () = arena.until_over() => {}
        }
        arena.open.fetch_sub(1, Ordering::Relaxed);
        drop(stream);
        // Two thousand that come back at once would be another test.
        sleep(Duration::from_millis(random.random_range(500..1_500))).await;
    }
}

struct Foe {
    arena: Arc<Arena>,
    input: Vec<u8>,
    told: Option<ErrorCode>,
}

impl Foe {
    /// Misbehaves until the server closes.
    async fn act(
        &mut self,
        stream: &TcpStream,
        manner: Manner,
        random: &mut SmallRng,
        mut out: Vec<u8>,
        user: u32,
    ) -> io::Result<()> {
        if manner.needs_session() {
            write(stream, &out).await?;
            out.clear();
            // The answer: what follows is said to a session.
            self.read_some(stream).await?;
        }
        match manner {
            Manner::Garbage | Manner::GarbageInSession => {
                out.resize(random.random_range(1..2_048), 0);
                random.fill_bytes(&mut out);
            }
            Manner::LargeOpener => append_header(&mut out, Kind::Hello, MAX_OPENING_FRAME_BYTES),
            Manner::LargeFrame => append_header(&mut out, Kind::Send, MAX_FRAME_BYTES),
            Manner::HalfFrame => {
                append_header(&mut out, Kind::Send, MAX_FRAME_BYTES - 1);
                out.resize(MAX_FRAME_BYTES - 1_024, 7);
            }
            Manner::Silent => {}
            Manner::Loris => {
                append_frame(&mut out, Kind::Hello, &hello(&Bytes::from_static(b"token"), 1));
                return self.drip(stream, &out).await;
            }
            Manner::Endless => {
                // A frame that may be, then one that may not: the rest lies unread.
                append_header(&mut out, Kind::Hello, MAX_OPENING_FRAME_BYTES);
                out.resize(16 * 1_024, 0xFF);
                return self.flood(stream, out, true).await;
            }
            Manner::FastSends => {
                for number in 1..=32 {
                    append_frame(&mut out, Kind::Send, &send_to(user, number, "faster"));
                }
                return self.flood(stream, out, true).await;
            }
            Manner::FastPings => {
                (0..512).for_each(|_| append_ping(&mut out));
                return self.flood(stream, out, true).await;
            }
            Manner::FastUnread => {
                (0..512).for_each(|_| append_ping(&mut out));
                let of = Some(wire::history::Of::User(user));
                let history = wire::History { request_id: 1, of, limit: 200, ..Default::default() };
                append_frame(&mut out, Kind::History, &history);
                return self.flood(stream, out, false).await;
            }
            Manner::FastLogins => {
                let name = format!("nobody{}", random.random_range(0..50));
                loop {
                    out.clear();
                    append_frame(&mut out, Kind::Login, &login(&name, "wrong password"));
                    write(stream, &out).await?;
                    self.read_some(stream).await?;
                }
            }
        }
        write(stream, &out).await?;
        loop {
            self.read_some(stream).await?;
        }
    }

    /// A byte a second.
    async fn drip(&mut self, stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
        for byte in bytes {
            write(stream, std::slice::from_ref(byte)).await?;
            tokio::select! {
                read = self.read_some(stream) => read?,
                () = sleep(Duration::from_secs(1)) => {}
            }
        }
        loop {
            self.read_some(stream).await?;
        }
    }

    /// The same again and again, as fast as it is taken.
    async fn flood(&mut self, stream: &TcpStream, bytes: Vec<u8>, reads: bool) -> io::Result<()> {
        let writing = async {
            loop {
                write(stream, &bytes).await?;
                tokio::task::yield_now().await;
            }
        };
        if !reads {
            return writing.await;
        }
        let reading = async {
            loop {
                self.read_some(stream).await?;
            }
        };
        tokio::pin!(writing);
        tokio::pin!(reading);
        tokio::select! {
            // What it is told may still lie there when it can write no more.
            _ = &mut writing => reading.await,
            ended = &mut reading => ended,
        }
    }

    /// Reads what is there, and keeps the reason if it is one.
    async fn read_some(&mut self, stream: &TcpStream) -> io::Result<()> {
        let mut buffer = [0; 8 * 1_024];
        let bytes = loop {
            stream.readable().await?;
            match stream.try_read(&mut buffer) {
                Ok(bytes) => break bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        };
        if bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.input.extend_from_slice(&buffer[..bytes]);
        let mut used = 0;
        let mut answers = 0;
        while let Decoded::Frame(raw) = decode_frame(&self.input[used..], MAX_LARGE_FRAME_BYTES) {
            used += raw.size;
            answers += 1;
            if raw.kind == Kind::Close as u8 {
                let close: wire::Close = prost::Message::decode(raw.body).unwrap();
                self.told = ErrorCode::from_number(close.code);
            }
        }
        self.input.drain(..used);
        self.arena.answers.fetch_add(answers, Ordering::Relaxed);
        Ok(())
    }
}

async fn write(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
