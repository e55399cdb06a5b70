//! Rows of a store, garbled: a flipped bit, a piece that is gone or too much, another row's value,
//! any bytes; or an inbox of rows that leave gaps, lie over each other and fall back. Whatever is asked of the store then, and whatever is sent to it, is answered or is a
//! typed error.
#![no_main]

#[path = "../../storage/tests/common/mod.rs"]
mod common;

use common::garbled::{
    Garbling, InboxRow, Row, USERS, answer_or_name, commands, questions, rows, with_inbox,
};
use libfuzzer_sys::fuzz_target;
use starling_codec::Query;
use starling_fuzz::Script;

thread_local! {
    static QUESTIONS: Vec<Query> = questions();
    static ROWS: Vec<Row> = rare_first(rows());
}

/// Those first of whose family a store has few, so that scripts reach them as often as others.
fn rare_first(rows: Vec<Row>) -> Vec<Row> {
    let like = |row: &Row| rows.iter().filter(|other| other.0 == row.0).count();
    let mut counted: Vec<(usize, Row)> = rows.iter().map(|row| (like(row), row.clone())).collect();
    counted.sort_by_key(|(count, _)| *count);
    counted.into_iter().map(|(_, row)| row).collect()
}

/// Rows of one inbox: each joins on, leaves a gap, lies over those before, or is anywhere.
fn any_inbox(script: &mut Script<'_>) -> Vec<InboxRow> {
    let mut next = 1u64;
    let mut inbox = Vec::new();
    for _ in 0..1 + script.below(8) {
        let first_seq = match script.below(4) {
            0 => next,
            1 => next.wrapping_add(script.number()),
            2 => next.wrapping_sub(script.number()),
            _ => script.number(),
        };
        let (events, epoch) = (script.number(), script.below(4) as u32);
        next = first_seq.wrapping_add(events);
        let references = script.some_bytes().to_vec();
        inbox.push(InboxRow { first_seq, events, epoch, references });
    }
    inbox
}

fn garble(garbled: &mut [Row], script: &mut Script<'_>) {
    for _ in 0..1 + script.below(3) {
        let index = script.index(garbled.len());
        let of_key = script.byte() % 8 == 0;
        let garbling = match script.below(5) {
            0 => Garbling::Flip { at: script.index(256), bit: script.byte() % 8 },
            1 => Garbling::Cut(script.index(256)),
            2 => Garbling::Grow(script.some_bytes().to_vec()),
            3 => Garbling::Replace(script.some_bytes().to_vec()),
            _ => {
                let (_, key, value) = &garbled[script.index(garbled.len())];
                Garbling::Replace(if of_key { key.clone() } else { value.clone() })
            }
        };
        let (_, key, value) = &mut garbled[index];
        garbling.apply(if of_key { key } else { value });
    }
}

fuzz_target!(|input: &[u8]| {
    let script = &mut Script::new(input);
    let asked = QUESTIONS.with(|all| (0..4).map(|_| script.one_of(all)).collect::<Vec<Query>>());
    let sent = script.one_of(&commands());
    let mut garbled = ROWS.with(Vec::clone);
    match script.flag() {
        true => garbled = with_inbox(&garbled, script.one_of(&USERS), &any_inbox(script)),
        false => garble(&mut garbled, script),
    }
    answer_or_name(&garbled, &asked, vec![sent]);
});
