//! `starling chat` at a terminal, against the real server: an evening of two people with three
//! devices, on whom the server dies. In the end what their devices hold goes to `starling-check`.

mod common;
mod support;

use common::Server;
use starling_client::codec::UserId;
use std::{path::Path, process::Stdio, sync::Arc, thread::JoinHandle, time::Duration};
use support::{
    PASSWORD,
    command::{Person, be_starling, check, texts},
    terminal::Seat,
};

const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const ENTER: &str = "\r";
const ESCAPE: u8 = 0x1b;

/// Not a test of its own: the process in which the others run the command.
#[test]
fn starling_itself() {
    be_starling();
}

fn chat(person: &Person, with: &str) -> Seat {
    let seat = Seat::take(person.command(&["chat", with], PASSWORD));
    seat.see("Ctrl-D ends it");
    seat.wait_until("a prompt", |seat| seat.last_line() == ">");
    seat
}

/// Somebody writes sixty messages, one at a time.
fn write_slowly(person: &Arc<Person>, to: UserId) -> JoinHandle<()> {
    let person = person.clone();
    std::thread::spawn(move || {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let (client, _events) = person.app();
            for number in 0..60 {
                let text = std::iter::once(format!("incoming {number}."));
                support::write(&client, to, text, |_| Default::default()).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            client.close().await;
        });
    })
}

#[test]
fn what_comes_in_does_not_tear_what_is_typed() {
    let server = Server::start(&["--shards", "2"]);
    let alice = Arc::new(Person::registered(&server, "alice"));
    let bob = Person::registered(&server, "bob");
    let mut seat = chat(&bob, "alice");

    let writing = write_slowly(&alice, UserId(2));
    // Key by key, as long as something comes in; a wide character and a correction among them.
    let typed = "half a sentence that a person is still typing, 你好, 👋 and a mistale";
    for key in typed.chars() {
        seat.press(&key.to_string());
        std::thread::sleep(Duration::from_millis(5));
    }
    seat.press("\x7f\x7fke");
    writing.join().unwrap();
    seat.see("incoming 59.");
    let typed = typed.replace("mistale", "mistake");
    seat.wait_until("the line as it was typed", |seat| seat.last_line() == format!("> {typed}"));
    let lines = seat.lines();
    for number in 0..60 {
        let end = format!("  alice: incoming {number}.");
        let shown = lines.iter().filter(|line| line.ends_with(&end)).count();
        assert_eq!(shown, 1, "{number}\n{}", lines.join("\n"));
    }
    // Nothing else stands there but what was said at the beginning and what is being typed.
    let torn = lines.iter().filter(|line| line.contains("half a sent")).count();
    assert_eq!(torn, 1, "{}", lines.join("\n"));

    seat.press(ENTER);
    seat.see("✓ message 61 is safe");
    seat.press(CTRL_D);
    assert_eq!(seat.end().code(), Some(0));
    assert_eq!(alice.texts("bob").last(), Some(&typed));
    check(&[&alice, &bob]);
    server.end();
}

/// The editor hands a line over while the chat hands it something to show: neither waits for the
/// other for ever.
#[test]
fn many_lines_pasted_at_once_are_sent_while_others_come_in() {
    let server = Server::start(&["--shards", "2"]);
    let alice = Arc::new(Person::registered(&server, "alice"));
    let bob = Person::registered(&server, "bob");
    let mut seat = chat(&bob, "alice");
    let writing = write_slowly(&alice, UserId(2));
    let pasted: Vec<String> = (0..300).map(|number| format!("pasted {number}.")).collect();
    for lines in pasted.chunks(100) {
        seat.press(&(lines.join(ENTER) + ENTER));
    }
    // Whose message comes last is a matter of chance, and only one's own get a tick.
    let ticks = |seat: &Seat| String::from_utf8_lossy(&seat.bytes()).matches("is safe").count();
    seat.wait_until("every line is safe", |seat| ticks(seat) == pasted.len());
    writing.join().unwrap();
    seat.see("incoming 59.");
    // Too much for one message: said, and that is all.
    for _ in 0..40 {
        seat.press(&"long ".repeat(200));
        std::thread::sleep(Duration::from_millis(5));
    }
    seat.press(ENTER);
    seat.see("not sent: the message has");
    seat.wait_until("a prompt", |seat| seat.last_line() == ">");
    seat.press(CTRL_D);
    assert_eq!(seat.end().code(), Some(0));
    let kept = alice.json(&["history", "bob", "--limit", "1000"]);
    let kept = texts(&kept.lines);
    let of_bob: Vec<_> = kept.into_iter().filter(|text| text.starts_with("pasted")).collect();
    assert_eq!(of_bob, pasted);
    check(&[&alice, &bob]);
    server.end();
}

#[test]
fn lines_are_ticked_when_they_are_safe_and_when_they_have_arrived() {
    let server = Server::start(&["--shards", "2"]);
    let alice = Person::registered(&server, "alice");
    let bob = Person::registered(&server, "bob");
    let mut seat = chat(&alice, "bob");
    seat.press("is anybody there?");
    seat.press(ENTER);
    seat.see("✓ message 1 is safe");
    assert_eq!(seat.count("has reached them"), 0, "nobody is there");
    let mut listener = bob.listen();
    assert_eq!(listener.text(), "is anybody there?");
    seat.see("✓✓ message 1 has reached them");
    assert_eq!(seat.last_line(), ">");
    assert_eq!(seat.count("is anybody there?"), 1, "what was typed is not printed again");

    // An empty line says nothing; Ctrl-C ends as Ctrl-D does, whatever is typed by then.
    seat.press(ENTER);
    seat.press("never mi");
    seat.see("> never mi");
    seat.press(CTRL_C);
    assert_eq!(seat.end().code(), Some(0));
    assert_eq!(alice.texts("bob"), ["is anybody there?"]);
    listener.end();
    check(&[&alice, &bob]);
    server.end();
}

#[test]
fn ctrl_c_at_a_password_gives_the_terminal_its_echo_back() {
    let server = Server::start(&["--shards", "1"]);
    let somebody = Person::new(&server);
    for arguments in [["register", "alice"], ["login", "alice"]] {
        let mut command = somebody.command(&arguments, PASSWORD);
        command.env_remove("STARLING_PASSWORD");
        let mut seat = Seat::take(command);
        seat.see("Password:");
        seat.wait_until("no echo", |seat| !seat.echoes());
        seat.press("half a pass");
        seat.press(CTRL_C);
        assert_eq!(seat.end().code(), Some(130), "{}", seat.lines().join("\n"));
        assert!(seat.echoes());
        assert_eq!(seat.count("half a pass"), 0, "{}", seat.lines().join("\n"));
    }
    server.end();
}

#[test]
fn colours_are_for_terminals() {
    let server = Server::start(&["--shards", "1"]);
    let alice = Person::registered(&server, "alice");
    let _bob = Person::registered(&server, "bob");
    assert_eq!(alice.json(&["send", "bob", "before"]).code, 0);

    let mut coloured = chat(&alice, "bob");
    let colour = b"\x1b[1;32malice\x1b[0m: before";
    assert!(coloured.bytes().windows(colour.len()).any(|bytes| bytes == colour));
    coloured.press(CTRL_D);
    assert_eq!(coloured.end().code(), Some(0));

    let mut command = alice.command(&["chat", "bob"], PASSWORD);
    command.env("NO_COLOR", "1");
    let mut plain = Seat::take(command);
    plain.see("alice: before");
    let colour = b"\x1b[1;32m";
    assert!(!plain.bytes().windows(colour.len()).any(|bytes| bytes == colour));
    plain.wait_until("a prompt", |seat| seat.last_line() == ">");
    plain.press(CTRL_D);
    assert_eq!(plain.end().code(), Some(0));

    let mut piped = alice.command(&["chat", "bob"], PASSWORD);
    let mut child = piped.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"through a pipe\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(!output.stdout.contains(&ESCAPE));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("alice: before") && said.contains("✓ message 2 is safe"), "{said}");
    assert_eq!(alice.texts("bob"), ["before", "through a pipe"]);
    server.end();
}

/// The evening that README promises: two people chat, a second device of one sees the same, the
/// server is killed under them and started again.
#[test]
fn two_people_chat_while_a_third_device_watches_and_a_killed_server_is_a_pause() {
    let data = tempfile::tempdir().unwrap();
    let start = |arguments: &[&str]| {
        Server::start_in(Path::new(data.path()), &[&["--shards", "2"], arguments].concat())
    };
    let server = start(&[]);
    let address = server.address.to_string();
    let alice = Person::registered(&server, "alice");
    let bob = Person::registered(&server, "bob");
    let bob_too = Person::logged_in(&server, "bob");
    let mut at_alice = chat(&alice, "bob");
    let mut at_bob = chat(&bob, "alice");
    let mut watching = bob_too.listen();
    let mut said = Vec::new();
    let mut say = |from: &mut Seat, to: &Seat, text: &str| {
        from.press(text);
        from.press(ENTER);
        to.see(&format!(": {text}"));
        assert_eq!(watching.text(), text);
        said.push(text.to_owned());
    };
    say(&mut at_alice, &at_bob, "hello, bob");
    say(&mut at_bob, &at_alice, "hello, alice");

    server.kill();
    for seat in [&at_alice, &at_bob] {
        seat.see("the connection is lost; it comes back");
    }
    // What is typed meanwhile goes out once there is a server again.
    at_alice.press("are you there?");
    at_alice.press(ENTER);
    at_bob.press("half a li");
    let server = start(&["--listen", &address]);
    for seat in [&at_alice, &at_bob] {
        seat.see("  connected");
    }
    at_bob.see("alice: are you there?");
    at_bob.wait_until("what is typed", |seat| seat.last_line() == "> half a li");
    assert_eq!(watching.text(), "are you there?");
    said.push("are you there?".to_owned());
    at_bob.press("ne");
    at_bob.press(ENTER);
    at_alice.see("bob: half a line");
    assert_eq!(watching.text(), "half a line");
    said.push("half a line".to_owned());

    for (mut seat, own, others) in [(at_alice, "> ", "bob: "), (at_bob, "> ", "alice: ")] {
        seat.wait_until("ticks", |seat| seat.count("has reached them") > 0);
        assert_eq!(seat.count("the connection is lost"), 1, "{}", seat.lines().join("\n"));
        seat.press(CTRL_D);
        assert_eq!(seat.end().code(), Some(0));
        for text in &said {
            let shown =
                seat.count(&format!("{own}{text}")) + seat.count(&format!("{others}{text}"));
            assert_eq!(shown, 1, "{text}:\n{}", seat.lines().join("\n"));
        }
    }
    assert_eq!(texts(&watching.end()), [""; 0], "nothing is doubled");
    for (person, with) in [(&alice, "bob"), (&bob, "alice"), (&bob_too, "alice")] {
        assert_eq!(person.texts(with), said);
    }
    check(&[&alice, &bob, &bob_too]);
    server.end();
}
