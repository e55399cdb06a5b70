//! What must stay true of the repository as a whole.

use xtask::{direction, metadata, policy::Policy, root};

fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn dependencies_point_one_way() {
    assert_none(&direction::wrong_edges(&direction::edges(&metadata(&[]).unwrap())));
}

#[test]
fn the_core_reaches_no_runtime_no_socket_and_no_database() {
    assert_none(&direction::wrong_reach(&metadata(&[]).unwrap()));
}

#[test]
fn licences_sources_and_bans_are_as_deny_toml_says() {
    let policy = Policy::read(&root().join("deny.toml")).unwrap();
    let metadata = metadata(&policy.graph.targets).unwrap();
    assert_none(&policy.complaints(&metadata).unwrap());
}
