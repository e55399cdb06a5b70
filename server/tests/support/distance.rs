//! A long way between clients and server: what is sent arrives so much later, in order.
//!
//! At its far end stands a gate, which shows without a clock how many round trips it takes to come
//! back. Of a client that has missed something it lets HELLO pass and then nothing, until the
//! server has sent the first of what was missed. Were more needed of the client, it would never be
//! sent, and whoever waits for it would wait for ever.

use prost::Message;
use starling_client::codec::{
    Decoded, Kind, decode_frame, limits::MAX_LARGE_FRAME_BYTES as MOST, wire,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

/// Pieces that are on their way in one direction, at most.
const ON_THEIR_WAY: usize = 1_024;

pub struct Distance {
    pub address: SocketAddr,
    resumed: Arc<AtomicU64>,
}

impl Distance {
    pub async fn start(upstream: SocketAddr, one_way: Duration) -> Distance {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let resumed = Arc::new(AtomicU64::new(0));
        let distance = Distance { address, resumed: Arc::clone(&resumed) };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, upstream, one_way, Arc::clone(&resumed)));
            }
        });
        distance
    }

    /// Links over which a client was told what it had missed, with nothing but HELLO from it.
    pub fn resumed(&self) -> u64 {
        self.resumed.load(Ordering::Relaxed)
    }
}

async fn carry(
    client: TcpStream,
    upstream: SocketAddr,
    one_way: Duration,
    resumed: Arc<AtomicU64>,
) {
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let (gate, gate_is_open) = watch::channel(false);
    let cursor = Arc::new(AtomicU64::new(0));
    let mut told = Told { input: Vec::new(), cursor: Arc::clone(&cursor), gate, resumed };
    let to_server = way(client_in, one_way, |_| {});
    let to_client = way(server_in, one_way, move |bytes| told.note(bytes));
    tokio::join!(
        arrive_at_server(to_server, server_out, cursor, gate_is_open),
        arrive(to_client, client_out)
    );
}

/// One direction: what comes in, and when it arrives. `note` sees it as it comes in.
fn way(
    mut from: OwnedReadHalf,
    one_way: Duration,
    mut note: impl FnMut(&[u8]) + Send + 'static,
) -> mpsc::Receiver<(Instant, Vec<u8>)> {
    let (pieces, arriving) = mpsc::channel(ON_THEIR_WAY);
    tokio::spawn(async move {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            note(&buffer[..count]);
            let piece = (Instant::now() + one_way, buffer[..count].to_vec());
            if pieces.send(piece).await.is_err() {
                return;
            }
        }
    });
    arriving
}

/// What arrives is written, and after it the end.
async fn arrive(mut pieces: mpsc::Receiver<(Instant, Vec<u8>)>, mut to: OwnedWriteHalf) {
    while let Some((due, bytes)) = pieces.recv().await {
        sleep_until(due).await;
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
    // It may have been closed from the other side already.
    let _ = to.shutdown().await;
}

async fn arrive_at_server(
    mut pieces: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut to: OwnedWriteHalf,
    cursor: Arc<AtomicU64>,
    mut gate_is_open: watch::Receiver<bool>,
) {
    let mut opener = Vec::new();
    let size = loop {
        let Some((due, bytes)) = pieces.recv().await else { return };
        sleep_until(due).await;
        opener.extend_from_slice(&bytes);
        if let Decoded::Frame(frame) = decode_frame(&opener, MOST) {
            assert_eq!(Kind::from_number(frame.kind), Some(Kind::Hello), "the first frame");
            let hello = wire::Hello::decode(frame.body).unwrap();
            cursor.store(hello.cursor.map_or(0, |place| place.seq), Ordering::Relaxed);
            break frame.size;
        }
    };
    if to.write_all(&opener[..size]).await.is_err() {
        return;
    }
    // An error says that the server has ended the link, which its end tells the client.
    let _ = gate_is_open.wait_for(|open| *open).await;
    if to.write_all(&opener[size..]).await.is_ok() {
        arrive(pieces, to).await;
    }
}

/// What the server has said until the gate opened.
struct Told {
    input: Vec<u8>,
    cursor: Arc<AtomicU64>,
    gate: watch::Sender<bool>,
    resumed: Arc<AtomicU64>,
}

impl Told {
    fn note(&mut self, bytes: &[u8]) {
        if *self.gate.borrow() {
            return;
        }
        self.input.extend_from_slice(bytes);
        while let Decoded::Frame(frame) = decode_frame(&self.input, MOST) {
            let cursor = self.cursor.load(Ordering::Relaxed);
            let opens = match Kind::from_number(frame.kind) {
                Some(Kind::Welcome) => {
                    let head = wire::Welcome::decode(frame.body).unwrap().head;
                    head.is_none_or(|head| head.seq <= cursor)
                }
                Some(Kind::Events) => {
                    self.resumed.fetch_add(1, Ordering::Relaxed);
                    true
                }
                // It refuses, or says good-bye.
                _ => true,
            };
            let size = frame.size;
            self.input.drain(..size);
            if opens {
                self.gate.send_replace(true);
                return;
            }
        }
    }
}
