//! A row of a store says anything at all. Whatever is asked of the store then, and whatever is
//! sent to it, is answered or is a typed error; nothing panics, hangs or takes all memory.

mod common;

use common::garbled::{
    Garbling, InboxRow, Row, USERS, answer_or_name, commands, questions, rows, with_inbox,
};
use proptest::prelude::*;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

fn any_garbling() -> impl Strategy<Value = Garbling> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..60);
    prop_oneof![
        4 => (any::<usize>(), 0..8u8).prop_map(|(at, bit)| Garbling::Flip { at, bit }),
        1 => any::<usize>().prop_map(Garbling::Cut),
        1 => bytes().prop_map(Garbling::Grow),
        2 => bytes().prop_map(Garbling::Replace),
    ]
}

/// Seqs near those that are asked for, and any.
fn any_seq() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..200u64, 1 => any::<u64>()]
}

fn any_inbox_row() -> impl Strategy<Value = InboxRow> {
    let references = proptest::collection::vec(any::<u8>(), 0..20);
    (any_seq(), any_seq(), 0..4u32, references).prop_map(
        |(first_seq, events, epoch, references)| InboxRow { first_seq, events, epoch, references },
    )
}

thread_local! {
    static ROWS: Vec<Row> = rows();
}

/// Cases that were begun in this process.
static BEGUN: AtomicU64 = AtomicU64::new(0);

fn begin_case() {
    if BEGUN.fetch_add(1, Ordering::Relaxed) == 0 {
        watch_over();
    }
}

/// Ends the process when one case takes minutes, where others take less than a millisecond: a
/// search that goes in circles over damaged rows would otherwise be a test that never ends.
fn watch_over() {
    thread::spawn(|| {
        loop {
            let begun = BEGUN.load(Ordering::Relaxed);
            thread::sleep(Duration::from_secs(120));
            if BEGUN.load(Ordering::Relaxed) == begun {
                eprintln!("case {begun} of rows of garbage does not end");
                std::process::abort();
            }
        }
    });
}

proptest! {
    #[test]
    fn rows_of_garbage_are_answered_or_named(
        garblings in proptest::collection::vec((any::<usize>(), any::<bool>(), any_garbling()), 1..4),
    ) {
        begin_case();
        let mut garbled = ROWS.with(Clone::clone);
        for (index, of_key, garbling) in &garblings {
            let index = index % garbled.len();
            let (_, key, value) = &mut garbled[index];
            garbling.apply(if *of_key { key } else { value });
        }
        answer_or_name(&garbled, &questions(), commands());
    }

    #[test]
    fn inboxes_whose_rows_do_not_join_on_are_answered_or_named(
        user in proptest::sample::select(&USERS),
        inbox in proptest::collection::vec(any_inbox_row(), 1..8),
    ) {
        begin_case();
        let garbled = ROWS.with(|rows| with_inbox(rows, user, &inbox));
        answer_or_name(&garbled, &questions(), commands());
    }
}
