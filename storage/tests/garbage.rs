//! A row of a store says anything at all. Whatever is asked of the store then, and whatever is
//! sent to it, is answered or is a typed error; nothing panics, hangs or takes all memory.

mod common;

use common::garbled::{Garbling, Row, answer_or_name, commands, questions, rows};
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

/// Cases that were begun in this process.
static BEGUN: AtomicU64 = AtomicU64::new(0);

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
        thread_local! {
            static ROWS: Vec<Row> = rows();
        }
        let mut garbled = ROWS.with(Clone::clone);
        if BEGUN.fetch_add(1, Ordering::Relaxed) == 0 {
            watch_over();
        }
        for (index, of_key, garbling) in &garblings {
            let index = index % garbled.len();
            let (_, key, value) = &mut garbled[index];
            garbling.apply(if *of_key { key } else { value });
        }
        answer_or_name(&garbled, &questions(), commands());
    }
}
