//! The command `starling` against the real server: what a first evening with Starling is. Where
//! people write, what all their commands told goes to `starling-check` in the end.

mod common;
mod faults;
mod support;

use common::Server;
use faults::{Control, House};
use starling_client::{
    Change, Entry, EntryState, Outgoing, Peer, SqliteStore, Store,
    codec::{Nonce, UserId},
};
use std::sync::Arc;
use support::{
    PASSWORD,
    command::{Ended, Person, be_starling, check, texts},
};

/// Not a test of its own: the process in which the others run the command.
#[test]
fn starling_itself() {
    be_starling();
}

#[test]
fn two_people_talk_a_third_device_sees_the_same_and_a_killed_server_is_a_pause() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_in(data.path(), &["--shards", "2"]);
    let address = server.address.to_string();
    let (alice, bob) = (Person::registered(&server, "alice"), Person::registered(&server, "bob"));
    let bob_too = Person::logged_in(&server, "Bob");

    let sent = alice.json(&["send", "bob", "one"]);
    assert_eq!((sent.code, &sent.lines[0]["type"]), (0, &"sent".into()));
    let mut listeners = [bob.listen(), bob_too.listen()];
    for listener in &mut listeners {
        let message = listener.wait_for("message");
        assert_eq!(message["text"], "one");
        assert_eq!(message["id"], sent.lines[0]["id"]);
        assert_eq!((&message["from"], &message["seq"]), (&"1".into(), &1.into()));
        assert_eq!((&message["inbox_seq"], &message["prev"]), (&1.into(), &0.into()));
        listener.wait_for("online");
    }
    server.kill();
    listeners.iter_mut().for_each(|listener| drop(listener.wait_for("offline")));
    assert_eq!(alice.json(&["send", "bob", "nobody hears"]).code, 3);
    let server = Server::start_in(data.path(), &["--shards", "2", "--listen", &address]);
    listeners.iter_mut().for_each(|listener| drop(listener.wait_for("online")));
    assert_eq!(alice.json(&["send", "bob", "two"]).code, 0);
    for mut listener in listeners {
        assert_eq!(listener.text(), "two");
        assert_eq!(texts(&listener.end()), [""; 0], "nothing is doubled");
    }
    // What was printed is not printed again; what came meanwhile is, whoever fetched it.
    assert_eq!(alice.json(&["send", "bob", "three"]).code, 0);
    assert_eq!(bob.json(&["send", "alice", "four"]).code, 0);
    let mut listener = bob.listen();
    assert_eq!([listener.text(), listener.text()], ["three", "four"]);
    assert_eq!(texts(&listener.end()), [""; 0]);

    let all = ["one", "two", "three", "four"];
    for (person, with) in [(&alice, "bob"), (&bob, "alice"), (&bob_too, "alice")] {
        assert_eq!(person.texts(with), all);
    }
    let last = alice.json(&["history", "bob", "--limit", "2"]);
    assert_eq!(texts(&last.lines), ["three", "four"]);
    let shown = alice.human(&["send", "bob", "five"]);
    assert_eq!((shown.code, shown.said.as_str()), (0, ""));
    check(&[&alice, &bob, &bob_too]);
    server.end();
}

#[test]
fn history_goes_on_over_many_pages() {
    let server = Server::start(&["--shards", "1"]);
    let (alice, bob) = (Person::registered(&server, "alice"), Person::registered(&server, "bob"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (client, _events) = alice.app();
        let texts = (0..450).map(|number| number.to_string());
        support::write(&client, UserId(2), texts, |_| Default::default()).await;
        client.close().await;
    });
    for limit in [1, 199, 200, 201, 450, 1_000] {
        let page = alice.json(&["history", "bob", "--limit", &limit.to_string()]);
        let expected = (450 - limit.min(450)..450).map(|number| number.to_string());
        assert!(texts(&page.lines).into_iter().eq(expected), "{limit}");
    }
    check(&[&alice, &bob]);
    server.end();
}

/// As a `send` to user 2 leaves the profile that is killed before its first byte is out.
fn leave(person: &Person, text: &str) {
    let mut store = SqliteStore::open(person.folder()).unwrap();
    let saved = store.load().unwrap();
    let send_no = starling_client::codec::SendNo(saved.next_send_no);
    let entry = Entry {
        nonce: Nonce(rand::random()),
        send_no,
        message: Outgoing::text(Peer::User(UserId(2)), text),
        state: EntryState::Unanswered,
    };
    store.commit(&[Change::NextSendNo(send_no.0 + 1), Change::Outbox(entry)]).unwrap();
}

#[test]
fn a_send_that_was_interrupted_goes_out_once_with_the_next_command() {
    let house = House::new(&["--shards", "2"]);
    let server = house.start();
    let (alice, bob) = (Person::registered(&server, "alice"), Person::registered(&server, "bob"));
    leave(&alice, "before the first byte");
    // Whoever asks for the conversation sees it there, however long the disk takes.
    house.set(Control::SyncDelayMs, 300);
    // And as one leaves it that is killed after the last, before the answer: as it was before.
    let before = alice.copied();
    assert_eq!(alice.texts("bob").len(), 1);
    assert_eq!(alice.texts("bob"), ["before the first byte"]);

    let restored = alice.restored(before);
    assert_eq!(restored.texts("bob"), ["before the first byte"]);
    assert_eq!(restored.json(&["send", "bob", "after"]).code, 0);
    assert_eq!(restored.texts("bob"), ["before the first byte", "after"]);
    check(&[&restored, &bob]);
    server.end();
}

#[test]
fn refusals_are_one_line_with_the_next_command() {
    let server = Server::start(&["--shards", "2"]);
    let alice = Person::registered(&server, "alice");
    let refused = |ended: Ended, name: &str, next: &str| {
        assert_eq!(ended.code, 1);
        let [line] = &ended.lines[..] else { panic!("{:?}", ended.lines) };
        assert_eq!((&line["type"], &line["name"]), (&"error".into(), &name.into()));
        assert!(line["message"].as_str().unwrap().contains(next), "{line}");
    };
    refused(alice.json(&["send", "nobody", "hi"]), "UNKNOWN_USER", "register nobody");
    refused(Person::new(&server).json(&["register", "Alice"]), "NAME_TAKEN", "login Alice");
    refused(Person::new(&server).json(&["register", "a b c"]), "NAME_INVALID", "register NAME");
    let stranger = Person::new(&server);
    let wrong = Person::end(stranger.command(&["--json", "login", "alice"], "wrong password"));
    refused(wrong, "WRONG_PASSWORD", "login alice");
    let human = alice.human(&["send", "nobody", "hi"]);
    assert_eq!((human.code, human.said.lines().count()), (1, 1), "{}", human.said);

    let missing = alice.json(&["stats", "--operator-key", "/dev/null"]);
    refused(missing, "WRONG_OPERATOR_KEY", "--operator-key");
    let key = server.data().join("operator.key");
    let counted = alice.json(&["stats", "--operator-key", key.to_str().unwrap()]);
    assert_eq!(counted.code, 0);
    assert!(counted.lines.iter().any(|line| line["type"] == "counter" && line["name"] == "syncs"));
    server.end();
}

#[test]
fn a_changed_password_logs_the_other_devices_out_and_a_logout_this_one() {
    let server = Server::start(&["--shards", "2"]);
    let alice = Person::registered(&server, "alice");
    let alice_too = Person::logged_in(&server, "alice");
    let new = "battery staple";
    let mut change = alice.command(&["--json", "passwd"], PASSWORD);
    change.env("STARLING_NEW_PASSWORD", new);
    let changed = Person::end(change);
    assert_eq!((changed.code, &changed.lines[0]["action"]), (0, &"passwd".into()));

    let out = alice_too.json(&["listen"]);
    assert_eq!((out.code, &out.lines[0]["name"]), (1, &"TOKEN_REVOKED".into()));
    let again = |person: &Person, password| {
        Person::end(person.command(&["--json", "login", "alice"], password)).code
    };
    assert_eq!((again(&alice_too, PASSWORD), again(&alice_too, new)), (1, 0));
    assert_eq!(alice.json(&["send", "alice", "a note"]).code, 0);

    assert_eq!(alice.json(&["logout"]).lines[0]["action"], "logout");
    assert_eq!(alice.json(&["listen"]).code, 2);
    // The same device comes back with what it held.
    assert_eq!(again(&alice, new), 0);
    assert_eq!(alice.texts("alice"), ["a note"]);
    check(&[&alice, &alice_too]);
    server.end();
}

/// What she wrote and saw is not forgotten because she types her name otherwise, nor because
/// somebody else types his.
#[test]
fn a_login_in_another_spelling_is_the_same_device_with_what_it_has_not_sent() {
    let server = Server::start(&["--shards", "2"]);
    let (alice, bob) = (Person::registered(&server, "Alice"), Person::registered(&server, "bob"));
    assert_eq!(bob.json(&["send", "alice", "one"]).code, 0);
    let mut listener = alice.listen();
    assert_eq!(listener.text(), "one");
    listener.end();
    let login = |spelling| {
        let ended = alice.json(&["login", spelling]);
        assert_eq!(ended.code, 0, "{:?}", ended.lines);
        let account = &ended.lines[0];
        assert_eq!((&account["name"], &account["device"]), (&"alice".into(), &"1".into()));
    };
    login("ALICE");

    assert_eq!(alice.json(&["logout"]).code, 0);
    leave(&alice, "two");
    for command in ["login", "register"] {
        let refused = alice.json(&[command, "bob"]);
        assert_eq!((refused.code, &refused.lines[0]["name"]), (2, &"USAGE".into()));
        let message = refused.lines[0]["message"].as_str().unwrap();
        assert!(message.contains("holds 1 messages") && message.contains("--profile"), "{message}");
    }
    login("aLiCe");
    let mut listener = alice.listen();
    assert_eq!(listener.text(), "two", "and nothing is printed again");
    listener.end();
    assert_eq!(bob.texts("alice"), ["one", "two"]);
    check(&[&alice, &bob]);
    server.end();
}

#[test]
fn a_copy_of_a_profile_that_takes_over_stops_the_first() {
    let server = Server::start(&["--shards", "2"]);
    let alice = Person::registered(&server, "alice");
    let copy = alice.copied();
    let mut first = copy.listen();
    first.wait_for("online");
    // Counts on above the copy: the first attempt may find the copy in its way.
    let taking = alice.listen();
    let stopped = first.wait_for_either(taking);
    assert_eq!((&stopped["type"], &stopped["name"]), (&"error".into(), &"REPLACED".into()));
    server.end();
}

/// Whoever reads the lines of `listen` has each once, whenever it is killed: by dropping lines
/// whose place is not above the last one's, and, killed as well, by going on from its own place.
#[test]
fn a_listener_killed_at_any_moment_goes_on_without_a_loss_or_a_repeat() {
    const MESSAGES: usize = 400;
    let server = Server::start(&["--shards", "2"]);
    let (alice, bob) = (Person::registered(&server, "alice"), Person::registered(&server, "bob"));
    let alice = Arc::new(alice);
    let writer = alice.clone();
    let writing = std::thread::spawn(move || {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let (client, _events) = writer.app();
            for number in 0..MESSAGES {
                let text = std::iter::once(number.to_string());
                support::write(&client, UserId(2), text, |_| Default::default()).await;
            }
            client.close().await;
        });
    });

    let mut reader = Reader::default();
    let mut round = 0;
    while reader.texts.len() < MESSAGES {
        let (epoch, seq) = reader.place;
        let after = format!("{seq}:{epoch}");
        // In every other round what it had not read is lost with it.
        let reader_dies = round % 2 == 1;
        let mut listener = match reader.died {
            true => bob.listen_with(&["--after", &after]),
            false => bob.listen(),
        };
        for _ in 0..1 + round * 7 % 23 {
            if reader.texts.len() < MESSAGES {
                reader.read(listener.wait_for("message"));
            }
        }
        listener.kill();
        while let Some(line) = listener.next().filter(|_| !reader_dies) {
            if line["type"] == "message" {
                reader.read(line);
            }
        }
        reader.died = reader_dies;
        round += 1;
    }
    println!("{round} rounds, {} lines were repeated and dropped", reader.repeats);
    let expected = (0..MESSAGES).map(|number| number.to_string());
    assert!(reader.texts.into_iter().eq(expected));
    writing.join().unwrap();
    check(&[&alice, &bob]);
    server.end();
}

/// A script that reads JSON lines as docs/json.md tells it to.
#[derive(Default)]
struct Reader {
    /// Epoch and seq of the last line.
    place: (u64, u64),
    died: bool,
    repeats: usize,
    texts: Vec<String>,
}

impl Reader {
    fn read(&mut self, line: serde_json::Value) {
        let number = |field: &str| line[field].as_u64().unwrap();
        let place = (number("epoch"), number("inbox_seq"));
        if place <= self.place {
            self.repeats += 1;
            return;
        }
        assert_eq!(number("prev"), self.place.1, "a hole");
        self.place = place;
        self.texts.push(line["text"].as_str().unwrap().to_owned());
    }
}
