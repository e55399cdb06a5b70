//! Logging in over a store that has been used: what is the same device, and what a store forgets.
#![cfg(feature = "tokio")]

mod support;

use prost::Message;
use starling_client::{
    CallError, Change, Entry, EntryState, Identity, MemoryStore, Store, account,
    codec::{
        Decoded, Kind, Nonce, SendNo, append_frame, decode_frame, limits::MAX_FRAME_BYTES,
        normal_name, wire,
    },
};
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};
use support::{event, text};
use tokio::runtime::{Builder, Runtime};

const PASSWORD: &str = "correct horse";

/// A server that does what the specification says of REGISTER and LOGIN, and knows every password.
/// Its users are numbered by their names; it knows none of a device above `most_devices`.
fn serve(most_devices: u32) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let mut devices = BTreeMap::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (name, device) = opener(&mut stream);
            let name = normal_name(&name).unwrap();
            let user = name.bytes().map(u32::from).sum();
            let opened: &mut u32 = devices.entry(user).or_default();
            let device = match device {
                1.. if device <= (*opened).min(most_devices) => device,
                _ => {
                    *opened += 1;
                    *opened
                }
            };
            let token = b"token".as_slice().into();
            let grant = wire::Grant { user, device, token, name, ..Default::default() };
            let mut out = Vec::new();
            append_frame(&mut out, Kind::Grant, &grant);
            stream.write_all(&out).unwrap();
        }
    });
    address
}

/// Whose name, and which device.
fn opener(stream: &mut TcpStream) -> (String, u32) {
    let mut input = Vec::new();
    loop {
        let mut bytes = [0; 1_024];
        let read = stream.read(&mut bytes).unwrap();
        assert_ne!(read, 0, "an opener comes");
        input.extend_from_slice(&bytes[..read]);
        let Decoded::Frame(raw) = decode_frame(&input, MAX_FRAME_BYTES) else { continue };
        let frame = raw.known().unwrap().unwrap();
        if frame.kind == Kind::Register {
            return (wire::Register::decode(frame.body).unwrap().name, 0);
        }
        assert_eq!(frame.kind, Kind::Login);
        let login = wire::Login::decode(frame.body).unwrap();
        return (login.name, login.device);
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// One message that was acknowledged, and one that waits.
fn write(store: &mut impl Store) {
    let entry = |number, state| {
        let (nonce, send_no) = (Nonce(number), SendNo(number));
        Change::Outbox(Entry { nonce, send_no, message: text("hello"), state })
    };
    let changes = [
        Change::Applied(event(1, 1)),
        entry(1, EntryState::Acknowledged(support::receipt())),
        entry(2, EntryState::Unanswered),
        Change::NextSendNo(3),
    ];
    store.commit(&changes).unwrap();
}

async fn registered(server: &str) -> (MemoryStore, Identity) {
    let mut store = MemoryStore::new();
    let alice = account::register(server, &mut store, "Alice", PASSWORD).await.unwrap();
    write(&mut store);
    (store, alice)
}

#[test]
fn a_name_in_another_spelling_is_the_same_device_with_its_outbox() {
    let server = serve(u32::MAX);
    runtime().block_on(async {
        let (mut store, alice) = registered(&server).await;
        let before = (store.saved().outbox.clone(), store.saved().cursor, store.state_hash());
        for spelling in ["alice", "ALICE", "Ａlice"] {
            store.commit(&[Change::LoggedOut]).unwrap();
            let again = account::login(&server, &mut store, spelling, PASSWORD).await.unwrap();
            assert_eq!((again.user, again.device), (alice.user, alice.device), "{spelling}");
            let saved = store.saved();
            assert_eq!((saved.outbox.clone(), saved.cursor, store.state_hash()), before);
        }
    });
}

#[test]
fn what_is_not_sent_is_forgotten_by_no_login_until_it_is_given_up() {
    let server = serve(u32::MAX);
    runtime().block_on(async {
        let (mut store, _) = registered(&server).await;
        store.commit(&[Change::LoggedOut]).unwrap();
        let before = store.saved().clone();
        for name in ["bob", "no name"] {
            let refused = account::login(&server, &mut store, name, PASSWORD).await;
            assert!(matches!(refused, Err(CallError::Unsent(1))), "{refused:?}");
            let refused = account::register(&server, &mut store, name, PASSWORD).await;
            assert!(matches!(refused, Err(CallError::Unsent(1))), "{refused:?}");
        }
        assert_eq!(*store.saved(), before);

        let given_up = account::give_up_unsent(&mut store).unwrap();
        assert_eq!(given_up, before.outbox[1..]);
        let bob = account::login(&server, &mut store, "bob", PASSWORD).await.unwrap();
        assert_eq!((&bob.name[..], bob.device.0), ("bob", 1), "nobody heard of him before");
        assert_eq!((store.saved().outbox.len(), store.events().len()), (0, 0));
    });
}

/// It was restored from an older backup.
#[test]
fn a_server_that_does_not_know_the_device_any_more_makes_nothing_forgotten() {
    let server = serve(0);
    runtime().block_on(async {
        let (mut store, alice) = registered(&server).await;
        let before = store.saved().clone();
        let refused = account::login(&server, &mut store, "alice", PASSWORD).await;
        assert!(matches!(refused, Err(CallError::Unsent(1))), "{refused:?}");
        assert_eq!(*store.saved(), before);

        account::give_up_unsent(&mut store).unwrap();
        let again = account::login(&server, &mut store, "alice", PASSWORD).await.unwrap();
        assert_eq!(again.user, alice.user);
        assert_ne!(again.device, alice.device);
    });
}
