//! The life of the process: signals, a full house, too few descriptors.

mod common;

use common::{
    PATIENCE, Server, in_shell,
    wire::{Wire, hello, login, send_to},
};
use prost::Message;
use starling_codec::{ErrorCode, Kind, append_frame, wire as bodies};
use std::{
    collections::BTreeMap,
    net::TcpStream,
    os::unix::process::CommandExt,
    time::{Duration, Instant},
};

#[test]
fn told_to_end_it_says_so_to_clients_and_exits_well() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let server = Server::start(&["--shards", "2"]);
        let mut fresh = Wire::connect(server.address);
        let mut session = Wire::connect(server.address);
        let grant = session.register("ada", "correct horse");
        session.hello(&grant.token, 1);
        let address = server.address;
        server.signal(signal);
        assert_eq!(session.expect_close(), ErrorCode::Draining);
        assert_eq!(fresh.expect_close(), ErrorCode::Draining);
        drop((fresh, session));
        let (status, said) = server.wait();
        assert_eq!(status.code(), Some(0), "{said}");
        assert!(TcpStream::connect(address).is_err());
    }
}

/// Whatever of fifty sends it still takes in when it is told to end: it ends well, and what it
/// acknowledged is there afterwards, as it said.
#[test]
fn told_to_end_with_sends_under_way_it_keeps_what_it_acknowledges() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start_in(data.path(), &["--shards", "2"]);
    let ada = Wire::connect(server.address).register("ada", "correct horse");
    let bob = Wire::connect(server.address).register("bob", "correct horse");
    let mut acknowledged = BTreeMap::new();
    for round in 0..6_u64 {
        let mut session = Wire::connect(server.address);
        session.hello(&ada.token, 2 * round + 1);
        let mut sends = Vec::new();
        for send_no in 50 * round + 1..=50 * (round + 1) {
            append_frame(&mut sends, Kind::Send, &send_to(bob.user, send_no, "under way"));
        }
        session.send_bytes(&sends);
        let mut note = |ack: bodies::SendAck| acknowledged.insert(ack.send_no, ack);
        for _ in 0..10 * round {
            note(session.await_kind(Kind::SendAck));
        }
        server.signal(libc::SIGTERM);
        while let Some((kind, body)) = session.next() {
            if kind == Kind::SendAck {
                note(bodies::SendAck::decode(&body[..]).unwrap());
            }
        }
        drop(session);
        let (status, said) = server.wait();
        assert_eq!(status.code(), Some(0), "{said}");

        server = Server::start_in(data.path(), &["--shards", "2"]);
        let kept = messages(&server, &ada, 2 * round + 2);
        for ack in acknowledged.values() {
            let kept: Vec<_> = kept.iter().filter(|m| m.send_no == ack.send_no).collect();
            let [kept] = kept[..] else { panic!("{ack:?}: {kept:?}") };
            assert_eq!((kept.id, kept.seq, kept.class), (ack.id, ack.seq, ack.class));
        }
    }
    assert!(acknowledged.len() >= 10 + 20 + 30 + 40 + 50, "{}", acknowledged.len());
    server.end();
}

/// All messages in the inbox of whom a token names.
fn messages(server: &Server, grant: &bodies::Grant, connect_no: u64) -> Vec<bodies::Message> {
    let mut wire = Wire::connect(server.address);
    let head = wire.hello(&grant.token, connect_no).head.unwrap().seq;
    let (mut seen, mut messages) = (0, Vec::new());
    while seen < head {
        let page: bodies::Events = wire.await_kind(Kind::Events);
        for event in page.events {
            seen = event.seq;
            let cursor = Some(bodies::Place { seq: event.seq, epoch: event.epoch });
            wire.send(Kind::Ack, &bodies::Ack { cursor });
            if let Some(bodies::event::Kind::Message(message)) = event.kind {
                messages.push(message);
            }
        }
    }
    messages
}

/// A hundred times the same send, over connections, an end and a kill: stored once, and answered
/// alike every time.
#[test]
fn the_same_send_a_hundred_times_is_one_message() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start_in(data.path(), &["--shards", "2"]);
    let ada = Wire::connect(server.address).register("ada", "correct horse");
    let bob = Wire::connect(server.address).register("bob", "correct horse");
    let mut session = Wire::connect(server.address);
    session.hello(&ada.token, 1);
    let mut answers: Vec<bodies::SendAck> = Vec::new();
    for time in 0..100 {
        if time == 33 || time == 66 {
            if time == 33 {
                server.end()
            } else {
                server.kill()
            }
            server = Server::start_in(data.path(), &["--shards", "2"]);
        }
        if time > 0 && time % 11 == 0 {
            session = Wire::connect(server.address);
            session.hello(&ada.token, 1 + time);
        }
        session.send(Kind::Send, &send_to(bob.user, 1, "once"));
        answers.push(session.await_kind(Kind::SendAck));
        assert_eq!(answers.last(), answers.first(), "time {time}");
    }
    for (grant, connect_no) in [(&ada, 1_000), (&bob, 1)] {
        let stored = messages(&server, grant, connect_no);
        let sends: Vec<u64> = stored.iter().map(|message| message.send_no).collect();
        assert_eq!(sends, [1], "the inbox of {}", grant.name);
    }
    server.end();
}

/// With all it can say about what it does, it says nothing of what people keep secret.
#[test]
fn the_log_has_no_password_token_or_text() {
    let data = tempfile::tempdir().unwrap();
    let told = data.path().join("told");
    let mut command = common::command();
    command.env("TOLD", &told).arg("--data").arg(data.path()).args(["--log", "trace"]);
    let command = in_shell("exec 2>\"$TOLD\";", &command);
    let server = Server::start_command(command, data.path());

    let (password, new_password, text) = ("correct horse", "battery staple", "meet me at nine");
    let mut wire = Wire::connect(server.address);
    let grant = wire.register("ada", password);
    wire.send(Kind::Login, &login("ada", password));
    let other: bodies::Grant = wire.expect(Kind::Grant);
    wire.hello(&other.token, 1);
    wire.send(Kind::Send, &send_to(grant.user, 1, text));
    wire.await_kind::<bodies::SendAck>(Kind::SendAck);
    let change = bodies::ChangePassword {
        request_id: 1,
        old_password: password.into(),
        new_password: new_password.into(),
    };
    wire.send(Kind::ChangePassword, &change);
    let newest: bodies::Grant = wire.await_kind(Kind::Grant);
    // What is wrong is told of more than what is right: a revoked token, a wrong password, a
    // message to nobody, and no frame at all.
    let mut revoked = Wire::connect(server.address);
    revoked.send(Kind::Hello, &hello(&grant.token, 1));
    assert_eq!(revoked.expect_close(), ErrorCode::TokenRevoked);
    let mut wrong = Wire::connect(server.address);
    wrong.send(Kind::Login, &login("ada", password));
    assert_eq!(wrong.expect_refused(), ErrorCode::WrongPassword);
    wire.send(Kind::Send, &send_to(1_000, 2, text));
    wire.await_kind::<bodies::SendRefused>(Kind::SendRefused);
    wire.send_bytes(&[&[0xFF; 10], text.as_bytes()].concat());
    assert_eq!(wire.expect_close(), ErrorCode::BadFrame);
    let operator_key = server.operator_key();
    server.end();

    let told = std::fs::read(told).unwrap();
    assert!(!told.is_empty(), "it said nothing at all");
    let in_hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let secrets = [password, new_password, text].map(|text| text.as_bytes().to_vec());
    let keys = [grant.token, other.token, newest.token].map(|token| token.to_vec());
    for secret in secrets.into_iter().chain(keys).chain([operator_key]) {
        // As it is, as digits, and as Rust shows a list and a string of bytes. Of each a piece from
        // the middle, for tokens of one user begin alike.
        let shown = [
            secret.clone(),
            in_hex(&secret).into_bytes(),
            format!("{secret:?}").trim_matches(['[', ']']).into(),
            secret.escape_ascii().to_string().into_bytes(),
        ];
        for shown in shown {
            let piece = &shown[shown.len() / 3..];
            let found = told.windows(piece.len()).any(|bytes| bytes == piece);
            assert!(!found, "{}", String::from_utf8_lossy(&shown));
        }
    }
}

#[test]
fn it_ends_though_a_client_does_not() {
    let server = Server::start(&[]);
    let mut stuck = Wire::connect(server.address);
    let grant = stuck.register("ada", "correct horse");
    stuck.hello(&grant.token, 1);
    let told = Instant::now();
    server.signal(libc::SIGTERM);
    let (status, said) = server.wait();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(told.elapsed() < Duration::from_secs(10));
    assert_eq!(stuck.expect_close(), ErrorCode::Draining);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let server = Server::start(&[]);
    // Holds up the first one's end, as it never reads its CLOSE.
    let _stuck = Wire::connect(server.address);
    server.signal(libc::SIGINT);
    server.signal(libc::SIGTERM);
    let (status, _) = server.wait();
    // Two signals that arrive together are one to the kernel only if they are the same.
    assert_eq!(status.code(), Some(130));
}

#[test]
fn one_connection_more_is_told_overload_and_the_others_stay() {
    let server = Server::start(&["--shards", "2", "--max-connections", "3"]);
    let mut held: Vec<Wire> = (0..3).map(|_| Wire::connect(server.address)).collect();
    // Accepted in order, so by the time one is answered, those before it are held.
    let grants: Vec<_> = held
        .iter_mut()
        .enumerate()
        .map(|(index, wire)| wire.register(&format!("user{index}"), "correct horse"))
        .collect();
    for _ in 0..20 {
        let mut more = Wire::connect(server.address);
        // What it says meanwhile must not make the kernel throw our answer away.
        more.send(Kind::Hello, &hello(&grants[0].token, 1));
        let close: bodies::Close = more.expect(Kind::Close);
        assert_eq!(ErrorCode::from_number(close.code), Some(ErrorCode::Overload));
        assert!(close.retry_after_ms > 0);
        assert_eq!(more.next(), None);
    }
    for (wire, grant) in held.iter_mut().zip(&grants) {
        wire.hello(&grant.token, 1);
    }
    // One that leaves makes room for one.
    held.pop();
    let until = Instant::now() + PATIENCE;
    loop {
        let mut next = Wire::connect(server.address);
        next.send(Kind::Hello, &hello(&grants[2].token, 2));
        match next.next().expect("an answer") {
            (Kind::Welcome, _) => break,
            (Kind::Close, _) => assert!(Instant::now() < until, "there is no room again"),
            (kind, _) => panic!("{}", kind.name()),
        }
    }
    server.end();
}

/// Started right after `kill -9` it once said that its port was in use: the rings of the one that
/// was killed still held the listeners.
#[test]
fn killed_and_started_anew_at_once_it_gets_its_port_again() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start_in(data.path(), &["--shards", "2"]);
    let address = server.address.to_string();
    for _ in 0..10 {
        server.kill();
        server = Server::start_in(data.path(), &["--shards", "2", "--listen", &address]);
        assert_eq!(server.address.to_string(), address);
    }
    server.end();
}

/// Accepting pauses, nothing spins, nobody who is there is harmed, and it goes on by itself.
#[test]
fn without_descriptors_accepting_pauses() {
    let server = Server::start(&["--shards", "1"]);
    let mut session = Wire::connect(server.address);
    let grant = session.register("ada", "correct horse");
    session.hello(&grant.token, 1);

    let before = server.limit_files(server.open_files() + 2);
    let mut waiting: Vec<Wire> = (0..10).map(|_| Wire::connect(server.address)).collect();
    let used_us = processor_time_us(server.pid());
    std::thread::sleep(Duration::from_millis(1_000));
    let used_us = processor_time_us(server.pid()) - used_us;
    assert!(used_us < 300_000, "{used_us} us of processor time in a second of waiting");
    session.send_bare(Kind::Ping);
    session.await_kind::<bodies::Refused>(Kind::Pong);

    server.limit_files(before);
    for (index, wire) in waiting.iter_mut().enumerate() {
        wire.register(&format!("user{index}"), "correct horse");
    }
    server.end();
}

/// A write of the store fails, as on a broken disk: whoever waits is told that nobody knows, and
/// the process ends, not well, before long. The next start has all that was acknowledged.
#[test]
fn when_the_store_fails_the_server_says_so_and_ends() {
    let data = tempfile::tempdir().unwrap();
    let mut command = common::command();
    command.arg("--data").arg(data.path());
    // SAFETY: signal is async-signal-safe. A file that may not grow is then an error, no signal.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            Ok(())
        });
    }
    let server = Server::start_command(command, data.path());
    let mut wire = Wire::connect(server.address);
    let grant = wire.register("ada", "correct horse");
    wire.hello(&grant.token, 1);
    wire.send(Kind::Send, &send_to(grant.user, 1, "kept"));
    wire.await_kind::<bodies::SendAck>(Kind::SendAck);

    let none = libc::rlimit { rlim_cur: 0, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the kernel reads the struct it is given.
    unsafe { libc::prlimit(server.pid(), libc::RLIMIT_FSIZE, &none, std::ptr::null_mut()) };
    let failed = Instant::now();
    wire.send(Kind::Send, &send_to(grant.user, 2, "nobody knows"));
    assert_eq!(wire.expect_close(), ErrorCode::UnknownOutcome);
    drop(wire);
    let (status, said) = server.wait();
    assert_eq!(status.code(), Some(3), "{said}");
    assert!(failed.elapsed() < Duration::from_secs(5));
    assert!(said.contains("ALARM") && said.contains("the store failed"), "{said}");

    let server = Server::start_in(data.path(), &[]);
    let mut wire = Wire::connect(server.address);
    let welcome = wire.hello(&grant.token, 2);
    assert!(welcome.window.unwrap().highest >= 1);
    server.end();
}

fn processor_time_us(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // After the name, which is in brackets: fields 14 and 15 are ticks of 10 ms.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks * 10_000
}
