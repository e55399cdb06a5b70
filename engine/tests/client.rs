//! The real client core against the real server core, in virtual time.

mod world;

use proptest::prelude::*;
use starling_client::{
    Answer, Event, Identity, MemoryStore, Outgoing, Page, Peer, Request, RequestError, Session,
    SessionSettings, Wish,
};
use starling_codec::{Decoded, Nonce, UserId, decode_frame, wire};
use world::World;

/// A device that runs the client core over a link of the world.
struct Device {
    session: Session<MemoryStore>,
    link: Option<usize>,
    written: u64,
    sent: Vec<Nonce>,
    applied: Vec<wire::Event>,
    answers: Vec<Result<Answer, RequestError>>,
}

impl Device {
    fn new(world: &mut World, user: UserId, token: Vec<u8>, seed: u64) -> Device {
        let grant = wire::Grant {
            user: user.0,
            device: 1,
            token: token.into(),
            expires_ms: world.now.unix_ms + 86_400_000,
            name: format!("user{}", user.0),
            ..Default::default()
        };
        let identity = Identity::granted(&grant, world.now.unix_ms);
        let store = MemoryStore::with_identity(identity);
        let session = Session::load(store, SessionSettings::default(), seed).unwrap();
        let (sent, applied, answers) = (Vec::new(), Vec::new(), Vec::new());
        Device { session, link: None, written: 0, sent, applied, answers }
    }

    fn write(&mut self, world: &World, to: UserId) {
        self.written += 1;
        let nonce = Nonce(self.written * 1_000_003);
        let message = Outgoing::text(Peer::User(to), &format!("message {}", self.written));
        self.session.send(world.now.mono_ms, nonce, message).unwrap();
    }

    /// Moves bytes both ways. Says whether any moved.
    fn run(&mut self, world: &mut World) -> bool {
        let now_ms = world.now.mono_ms;
        if let Some(link) = self.link
            && world.links[link].closed
            && world.links[link].to_peer.is_empty()
        {
            self.link = None;
            self.session.closed(now_ms);
        }
        match (self.session.wish(), self.link) {
            (Wish::OpenAt(_), Some(link)) => {
                world.cut(link);
                self.link = None;
            }
            (Wish::OpenAt(at), None) if at <= now_ms => {
                self.link = Some(world.connect());
                self.session.opened(now_ms);
            }
            _ => {}
        }
        self.session.tick(now_ms);
        let Some(link) = self.link else { return false };
        let came = std::mem::take(&mut world.links[link].to_peer);
        // As a socket brings them.
        for some in came.chunks(4 * 1024) {
            self.session.receive(now_ms, some);
        }
        let output = self.session.output().to_vec();
        self.session.written(output.len());
        world.send(link, &output);
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Applied(event) => self.applied.push(event),
                Event::Sent { nonce, .. } => self.sent.push(nonce),
                Event::Refused { refusal, .. } => panic!("{refusal}"),
                Event::Unsent(entry) => panic!("{entry:?}"),
                Event::Answered { result, .. } => self.answers.push(result),
                _ => {}
            }
        }
        !came.is_empty() || !output.is_empty()
    }

    fn cut(&mut self, world: &mut World) {
        if let Some(link) = self.link.take() {
            world.cut(link);
            world.links[link].to_peer.clear();
            self.session.closed(world.now.mono_ms);
        }
    }

    /// The messages applied, as (sender, send_no).
    fn messages(&self) -> Vec<(u32, u64)> {
        let message = |event: &wire::Event| match &event.kind {
            Some(wire::event::Kind::Message(message)) => Some((message.sender, message.send_no)),
            _ => None,
        };
        self.applied.iter().filter_map(message).collect()
    }
}

fn run(world: &mut World, devices: &mut [Device]) {
    loop {
        world.run();
        let moved: Vec<bool> = devices.iter_mut().map(|device| device.run(world)).collect();
        world.run();
        if !moved.contains(&true) {
            return;
        }
    }
}

/// Runs until all is answered and applied.
fn settle(world: &mut World, devices: &mut [Device]) {
    for _ in 0..300 {
        run(world, devices);
        world.advance(250);
    }
}

fn two(world: &mut World) -> (UserId, UserId, Vec<Device>) {
    // A frame or two for every message.
    world.batch = 1;
    let (ada, ada_token) = world.user("ada");
    let (bob, bob_token) = world.user("bob");
    let devices =
        vec![Device::new(world, ada, ada_token, 1), Device::new(world, bob, bob_token, 2)];
    (ada, bob, devices)
}

fn check(world: &World, devices: &[Device], ada: UserId, bob: UserId) {
    let all = world.store.conversation(ada, bob);
    for (device, user) in devices.iter().zip([ada, bob]) {
        assert_eq!(device.sent.len() as u64, device.written, "all is answered, once");
        assert_eq!(device.messages(), all, "all is applied, once and in order");
        let own = all.iter().filter(|(from, _)| *from == user.0).map(|(_, number)| *number);
        assert!(own.is_sorted());
        assert_eq!(device.session.cursor().seq, world.store.head(user));
        let seqs = device.applied.iter().map(|event| event.seq);
        assert!(seqs.eq(1..=world.store.head(user)));
    }
    assert_eq!(all.len() as u64, devices.iter().map(|device| device.written).sum::<u64>());
}

/// The server counts what it may send in halves of a window, and a client that acknowledged only
/// every half left it waiting for the second to pass, at every window.
#[test]
fn catching_up_waits_for_no_clock_whatever_the_size_of_messages() {
    for size in [1, 250, 1_500, 7_000, 20_000, 32_000] {
        let mut world = World::new(1);
        let (ada, bob, mut devices) = two(&mut world);
        settle(&mut world, &mut devices[..1]);
        let text = "x".repeat(size);
        let messages = (2_000_000 / size).min(700) as u64;
        for _ in 0..messages {
            devices[0].written += 1;
            let nonce = Nonce(devices[0].written * 1_000_003);
            let message = Outgoing::text(Peer::User(bob), &text);
            devices[0].session.send(world.now.mono_ms, nonce, message).unwrap();
            if devices[0].written.is_multiple_of(16) {
                settle(&mut world, &mut devices[..1]);
            }
        }
        settle(&mut world, &mut devices[..1]);
        let began_ms = world.now.mono_ms;
        run(&mut world, &mut devices);
        assert_eq!(devices[1].applied.len() as u64, messages, "of {size} bytes");
        assert_eq!(world.now.mono_ms, began_ms);
        check(&world, &devices, ada, bob);
    }
}

/// The link of one side is cut at every boundary of frames that the server writes to it, and one
/// byte before and after; over one to three shards.
#[test]
fn a_link_is_cut_at_every_frame() {
    for shards in 1..=3 {
        let mut boundaries = vec![0];
        let mut next = 0;
        while let Some(&cut_at) = boundaries.get(next) {
            next += 1;
            let mut world = World::new(shards);
            let (ada, bob, mut devices) = two(&mut world);
            run(&mut world, &mut devices[1..]);
            for _ in 0..3 {
                devices[0].write(&world, bob);
                devices[1].write(&world, ada);
            }
            // The link that ada is about to open takes so many bytes, and then no more.
            world.first_takes = Some((devices[1].link.unwrap() + 1, cut_at));
            run(&mut world, &mut devices);
            devices[0].write(&world, bob);
            run(&mut world, &mut devices);
            devices[0].cut(&mut world);
            settle(&mut world, &mut devices);
            check(&world, &devices, ada, bob);
            if next == 1 {
                boundaries.extend(frame_ends(shards));
            }
        }
        assert!(boundaries.len() > 20);
    }
}

/// Where the frames end that the server writes to ada when nothing is cut, and the bytes beside.
fn frame_ends(shards: u16) -> Vec<usize> {
    let mut world = World::new(shards);
    let (ada, bob, mut devices) = two(&mut world);
    run(&mut world, &mut devices[1..]);
    for _ in 0..3 {
        devices[0].write(&world, bob);
        devices[1].write(&world, ada);
    }
    world.record = Some(devices[1].link.unwrap() + 1);
    run(&mut world, &mut devices);
    let (mut rest, mut at, mut ends) = (&world.recorded[..], 0, Vec::new());
    while let Decoded::Frame(raw) = decode_frame(rest, 1 << 20) {
        at += raw.size;
        ends.extend([at - 1, at, at + 1]);
        rest = &rest[raw.size..];
    }
    ends
}

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Write(usize),
    Cut(usize),
    Restart,
    Pass(u64),
    Hold { commits: bool, reads: bool },
    Fold(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0usize..2).prop_map(Step::Write),
        2 => (0usize..2).prop_map(Step::Cut),
        1 => Just(Step::Restart),
        3 => (1u64..3_000).prop_map(Step::Pass),
        1 => (any::<bool>(), any::<bool>())
            .prop_map(|(commits, reads)| Step::Hold { commits, reads }),
        1 => any::<bool>().prop_map(Step::Fold),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Cuts, restarts, stalls and too few credits: each message is answered once and applied
    /// once, in order, on both sides.
    #[test]
    fn client_and_server_agree_whatever_happens(
        shards in 1u16..4,
        credits in 2u32..20,
        rate in prop_oneof![Just(0u32), 5u32..50],
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut world = World::with(shards, move |settings| {
            settings.credits = credits;
            settings.sends_per_second = rate;
        });
        let (ada, bob, mut devices) = two(&mut world);
        for step in steps {
            match step {
                Step::Write(index) => {
                    let to = [bob, ada][index];
                    devices[index].write(&world, to);
                }
                Step::Cut(index) => devices[index].cut(&mut world),
                Step::Restart => world.restart_engines(),
                Step::Pass(ms) => world.advance(ms),
                Step::Hold { commits, reads } => {
                    (world.hold_commits, world.hold_reads) = (commits, reads);
                }
                Step::Fold(folds) => world.fold = folds,
            }
            run(&mut world, &mut devices);
        }
        (world.hold_commits, world.hold_reads) = (false, false);
        settle(&mut world, &mut devices);
        check(&world, &devices, ada, bob);
    }
}

#[test]
fn a_history_and_a_name_are_asked_for() {
    let mut world = World::new(2);
    let (_, bob, mut devices) = two(&mut world);
    for _ in 0..5 {
        devices[0].write(&world, bob);
    }
    run(&mut world, &mut devices);
    let history = Request::History { of: Peer::User(bob), page: Page::Newest, limit: 3 };
    for request in [Request::Resolve("BOB".into()), Request::NameOf(bob), history] {
        devices[0].session.request(world.now.mono_ms, request).unwrap();
    }
    run(&mut world, &mut devices);
    let answers = &devices[0].answers;
    let name = Answer::User { user: bob, name: "bob".into() };
    assert_eq!(answers[..2], [Ok(name.clone()), Ok(name)]);
    let Ok(Answer::History(page)) = &answers[2] else { panic!("{answers:?}") };
    assert_eq!(page.messages.iter().map(|message| message.seq).collect::<Vec<_>>(), [3, 4, 5]);
}
