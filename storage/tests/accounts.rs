//! Users and devices on both backends.

mod common;

use common::{Running, TIME_MS, on_each, refused};
use starling_codec::{
    Answer, Command, Credential, DeviceId, ErrorCode, Outcome, Query, Recipients, UserDraft,
    UserGrant, UserId, serial::is_revoked,
};
use starling_storage::MemoryBackend;
use std::sync::Arc;

const ADA: UserId = UserId(1);

fn open_device(store: &mut Running, user: UserId, device: Option<u32>) -> Outcome {
    store.run(Command::OpenDevice {
        user,
        device: device.map(DeviceId),
        platform: "phone".to_owned(),
        time_ms: TIME_MS,
    })
}

/// The part of a serial that counts, from 1 on.
fn count(serial: u32) -> u32 {
    serial & 0xFF
}

fn granted(outcome: Outcome) -> (u32, u32) {
    match outcome {
        Outcome::Granted(UserGrant { device, serial, .. }) => (device.0, count(serial)),
        other => panic!("{other:?}"),
    }
}

fn serial(store: &mut Running, device: u32) -> u32 {
    count(store.fresh_device(ADA, device).serial)
}

#[test]
fn users_are_dense_and_a_name_is_made_once() {
    on_each(|home| {
        let mut store = home.open();
        let first = store.users(&["ada", "bob"]);
        assert_eq!(first.iter().map(|grant| grant.user.0).collect::<Vec<_>>(), [1, 2]);
        assert!(first.iter().all(|grant| grant.created && grant.device == DeviceId(1)));
        store.close();
        let mut store = home.open();
        let again = store.users(&["bob", "cy", "ada"]);
        let seen: Vec<_> = again.iter().map(|grant| (grant.user.0, grant.created)).collect();
        assert_eq!(seen, [(2, false), (3, true), (1, false)]);
        assert_eq!(again[0].serial, first[1].serial);
        store.close();
    });
}

#[test]
fn names_and_credentials_are_found() {
    on_each(|home| {
        let mut store = home.open();
        let drafts = vec![UserDraft {
            name: "ada".to_owned(),
            password_hash: Some("$phc$".to_owned()),
            platform: "test".to_owned(),
        }];
        store.run(Command::CreateUsers { drafts, time_ms: TIME_MS });
        store.users(&["bob"]);
        let ada = Credential {
            user: ADA,
            name: "ada".to_owned(),
            password_hash: Some("$phc$".to_owned()),
        };
        let found = Answer::Credential(Some(ada));
        assert_eq!(store.ask(Query::Credential { name: "ada".to_owned() }), found);
        assert_eq!(store.ask(Query::CredentialOf { user: ADA }), found);
        let nobody = Query::Credential { name: "eve".to_owned() };
        assert_eq!(store.ask(nobody), Answer::Credential(None));
        let all = |users| Query::Users { users };
        let both = Recipients::Two(ADA, UserId(2));
        assert_eq!(store.ask(all(both)), Answer::Users(true));
        let one_is_not = Recipients::Two(ADA, UserId(3));
        assert_eq!(store.ask(all(one_is_not)), Answer::Users(false));
        store.close();
    });
}

#[test]
fn devices_are_dense_and_taken_again_with_a_new_serial() {
    on_each(|home| {
        let mut store = home.open();
        store.users(&["ada"]);
        assert_eq!(granted(open_device(&mut store, ADA, None)), (2, 1));
        assert_eq!(granted(open_device(&mut store, ADA, None)), (3, 1));
        assert_eq!(granted(open_device(&mut store, ADA, Some(2))), (2, 2));
        // One that this store does not know gets a new number.
        assert_eq!(granted(open_device(&mut store, ADA, Some(77))), (4, 1));
        assert_eq!(refused(open_device(&mut store, UserId(9), None)), ErrorCode::UnknownUser);
        assert_eq!((serial(&mut store, 1), serial(&mut store, 2)), (1, 2));
        store.close();
    });
}

/// The numbers of users and devices that a backup does not know are given again.
#[test]
fn what_is_made_after_an_older_backup_was_restored_takes_no_token_of_what_was_lost() {
    let backup = |backend: &MemoryBackend| backend.backup(backend.log_ends().1);
    let empty = MemoryBackend::new();
    let with_ada = backup(&empty);
    let mut store = Running::on(Arc::new(with_ada.clone()));
    let ada = store.users(&["ada"])[0];
    store.close();
    let with_phone = backup(&with_ada);
    let device_of = |backend: MemoryBackend| {
        let mut store = Running::on(Arc::new(backend));
        let Outcome::Granted(grant) = open_device(&mut store, ADA, None) else { panic!() };
        let ada = store.fresh_device(ADA, 1).serial;
        store.close();
        (grant, ada)
    };
    let (phone, unchanged) = device_of(with_phone);
    assert!(!is_revoked(ada.serial, unchanged), "an opening revokes nothing");

    let (laptop, unchanged) = device_of(backup(&with_ada));
    assert_eq!((phone.user, phone.device), (laptop.user, laptop.device));
    assert!(is_revoked(phone.serial, laptop.serial));
    assert!(!is_revoked(ada.serial, unchanged));

    let mut store = Running::on(Arc::new(empty));
    let bob = store.users(&["bob"])[0];
    assert_eq!((ada.user, ada.device), (bob.user, bob.device));
    assert!(is_revoked(ada.serial, bob.serial));
    store.close();
}

#[test]
fn accounts_of_one_batch_see_each_other() {
    on_each(|home| {
        let mut store = home.open();
        let draft = |name: &str| UserDraft {
            name: name.to_owned(),
            password_hash: None,
            platform: String::new(),
        };
        let create = |names: [&str; 2]| Command::CreateUsers {
            drafts: names.map(draft).to_vec(),
            time_ms: TIME_MS,
        };
        let open = || Command::OpenDevice {
            user: ADA,
            device: None,
            platform: String::new(),
            time_ms: TIME_MS,
        };
        let commands = [create(["ada", "bob"]), open(), open(), create(["bob", "ada"])];
        let keys = commands.map(|command| store.queue(command));
        store.handle.wake();
        let outcomes = keys.map(|key| store.outcome(key));
        let Outcome::Users(first) = &outcomes[0] else { panic!("{outcomes:?}") };
        let Outcome::Users(again) = &outcomes[3] else { panic!("{outcomes:?}") };
        assert_eq!((again[0].user, again[1].user), (first[1].user, first[0].user));
        assert!(again.iter().all(|grant| !grant.created));
        assert_eq!(granted(outcomes[1].clone()), (2, 1));
        assert_eq!(granted(outcomes[2].clone()), (3, 1));
        store.close();
    });
}

#[test]
fn a_new_password_revokes_all_tokens_and_one_device_gets_a_new_one() {
    on_each(|home| {
        let mut store = home.open();
        store.users(&["ada"]);
        open_device(&mut store, ADA, None);
        open_device(&mut store, ADA, None);
        let set = |user, keep| Command::SetPassword {
            user,
            keep: DeviceId(keep),
            password_hash: "$new$".to_owned(),
        };
        assert_eq!(granted(store.run(set(ADA, 2))), (2, 2));
        assert_eq!([1, 2, 3].map(|device| serial(&mut store, device)), [2, 2, 2]);
        match store.ask(Query::CredentialOf { user: ADA }) {
            Answer::Credential(Some(credential)) => {
                assert_eq!(credential.password_hash.as_deref(), Some("$new$"));
                assert_eq!(credential.name, "ada");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(refused(store.run(set(UserId(9), 1))), ErrorCode::UnknownUser);
        store.close();
    });
}

#[test]
fn revoking_raises_the_serial_for_good() {
    on_each(|home| {
        let mut store = home.open();
        store.users(&["ada"]);
        let revoke = |device| Command::Revoke { user: ADA, device: DeviceId(device) };
        assert_eq!(store.run(revoke(1)), Outcome::Done);
        assert_eq!(refused(store.run(revoke(8))), ErrorCode::UnknownUser);
        store.close();
        let mut store = home.open();
        assert_eq!(serial(&mut store, 1), 2);
        store.close();
    });
}

#[test]
fn a_user_has_so_many_devices_and_no_more() {
    let mut store = common::Home::memory().open();
    store.users(&["ada"]);
    let keys: Vec<u64> = (2..=1_001)
        .map(|_| {
            store.queue(Command::OpenDevice {
                user: ADA,
                device: None,
                platform: String::new(),
                time_ms: TIME_MS,
            })
        })
        .collect();
    store.handle.wake();
    let outcomes: Vec<_> = keys.into_iter().map(|key| store.outcome(key)).collect();
    assert_eq!(granted(outcomes[998].clone()), (1_000, 1));
    assert_eq!(refused(outcomes[999].clone()), ErrorCode::DeviceLimit);
    store.close();
}
