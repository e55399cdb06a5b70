//! The judge of the other tests is tried: in a store that is right it finds nothing, and every
//! fault that is planted in its rows it finds.

mod common;

use common::{Running, Send, checker::Contents};
use starling_codec::{Accepted, UserId};
use starling_storage::{Backend, FAMILIES, Family, MemoryBackend, Rows, Tier};
use std::{
    ops::ControlFlow,
    panic::{self, AssertUnwindSafe},
    sync::Arc,
};

const ADA: UserId = UserId(1);
const BOB: UserId = UserId(2);
const MESSAGES: u64 = 4;

type Row = (Family, Vec<u8>, Vec<u8>);

/// A store in which Ada wrote to Bob, and what she was told.
fn store() -> (Vec<Row>, Vec<Accepted>) {
    let backend = MemoryBackend::new();
    let mut store = Running::on(Arc::new(backend.clone()));
    store.users(&["ada", "bob"]);
    let told = (1..=MESSAGES).map(|send_no| store.sent(Send::new(ADA, BOB, send_no))).collect();
    store.close();
    let (mut rows, view) = (Vec::new(), backend.view());
    for spec in &FAMILIES {
        let mut each = |key: &[u8], value: &[u8]| {
            rows.push((spec.family, key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        };
        view.scan(Tier::All, spec.family, &[], &[0xff; 20], &mut each).unwrap();
    }
    (rows, told)
}

/// Whether the judge finds anything in these rows.
fn finds_fault(rows: &[Row], told: &[Accepted]) -> bool {
    let mut batch = Rows::default();
    for (family, key, value) in rows {
        batch.put(*family, key, |out| out.extend_from_slice(value));
    }
    batch.sort();
    let backend = MemoryBackend::new();
    backend.write(&batch).unwrap();
    let mut store = Running::on(Arc::new(backend));
    let judged = panic::catch_unwind(AssertUnwindSafe(|| {
        let contents = Contents::read(&mut store, [ADA, BOB]);
        contents.no_nonce_twice();
        told.iter().all(|accepted| {
            let send_no = accepted.send_no.0;
            contents.has((ADA.0, 1, send_no), send_no * 1_000, accepted)
        })
    }));
    store.close();
    !judged.unwrap_or(false)
}

/// Indices of the rows of a log, the newest first; `owner`: its user, or any conversation.
fn log(rows: &[Row], family: Family, owner: Option<UserId>) -> Vec<usize> {
    let is_of =
        |key: &[u8]| owner.is_none_or(|user| key.starts_with(&u64::from(user.0).to_be_bytes()));
    let rows = rows.iter().enumerate();
    rows.filter(|(_, row)| row.0 == family && is_of(&row.1)).map(|(index, _)| index).collect()
}

fn remove(rows: &mut Vec<Row>, mut indices: Vec<usize>) {
    indices.sort_unstable();
    for index in indices.into_iter().rev() {
        rows.remove(index);
    }
}

#[test]
fn every_planted_fault_is_found_and_no_other() {
    let (right, told) = store();
    let (messages, adas, bobs) = (
        log(&right, Family::Message, None),
        log(&right, Family::Inbox, Some(ADA)),
        log(&right, Family::Inbox, Some(BOB)),
    );
    assert_eq!([messages.len(), adas.len(), bobs.len()], [MESSAGES as usize; 3]);
    assert!(!finds_fault(&right, &told));

    let planted = |name: &str, plant: &dyn Fn(&mut Vec<Row>)| {
        let mut rows = right.clone();
        plant(&mut rows);
        assert!(rows != right && finds_fault(&rows, &told), "{name}");
    };
    for at in 0..MESSAGES as usize {
        planted("a body is gone", &|rows| remove(rows, vec![messages[at]]));
        planted("the sender lost an event", &|rows| remove(rows, vec![adas[at]]));
        planted("the recipient lost an event", &|rows| remove(rows, vec![bobs[at]]));
        planted("one is gone everywhere", &|rows| {
            remove(rows, vec![messages[at], adas[at], bobs[at]]);
        });
        planted("a body is another's", &|rows| {
            let other = messages[(at + 1) % messages.len()];
            rows[messages[at]].2 = right[other].2.clone();
        });
        planted("an event is of a later epoch", &|rows| rows[bobs[at]].2[0] += 3);
        planted("an own event has another nonce", &|rows| {
            let nonce = ((MESSAGES - at as u64) * 1_000).to_le_bytes();
            let value = &mut rows[adas[at]].2;
            let found = value.windows(8).position(|bytes| bytes == nonce).unwrap();
            value[found] ^= 1;
        });
    }
    planted("one is there twice", &|rows| {
        let newest = [messages[0], adas[0], bobs[0]].map(|index| right[index].clone());
        for (family, mut key, value) in newest {
            // Newest first: the next seq has a key one less.
            let last = key.len() - 1;
            key[last] -= 1;
            rows.push((family, key, value));
        }
    });
}
