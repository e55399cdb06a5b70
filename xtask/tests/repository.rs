//! What must stay true of the repository as a whole.

use std::path::{Path, PathBuf};
use xtask::{direction, manual, map, metadata, metadata_of, policy::Policy, root, workspaces};

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
    for workspace in workspaces().unwrap() {
        let metadata = metadata_of(&workspace, &policy.graph.targets).unwrap();
        assert_none(&policy.complaints(&metadata).unwrap());
    }
}

/// `cargo fmt --all` knows only the workspace that it stands in.
#[test]
fn make_test_formats_every_workspace() {
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    assert!(makefile.contains("\t$(CARGO) fmt --all --check\n"));
    let workspaces = workspaces().unwrap();
    assert_eq!(workspaces[0], root());
    assert!(workspaces.len() >= 4, "fuzz, counts and the models of the mesh are there");
    for workspace in &workspaces[1..] {
        let folder = workspace.strip_prefix(root()).unwrap().display();
        let line = format!("\t$(CARGO) fmt --manifest-path {folder}/Cargo.toml --check\n");
        assert!(makefile.contains(&line), "the Makefile lacks:{line}");
    }
}

#[test]
fn the_architecture_map_leads_somewhere() {
    let Ok(text) = std::fs::read_to_string(root().join("docs/ARCHITECTURE.md")) else {
        panic!("docs/ARCHITECTURE.md is the map of this repository, and it is not there");
    };
    let waypoints = map::waypoints(&text);
    assert!(waypoints.len() >= 6, "the map names only {} waypoints", waypoints.len());
    let lost: Vec<String> = waypoints.iter().filter_map(|point| map::lost(root(), point)).collect();
    assert_none(&lost);
}

/// All but messages stand in an inbox as clients get them (docs/adr/0005), so a new kind is no change
/// in the store.
#[test]
fn the_store_knows_no_kind_of_event_but_a_message() {
    let schema = std::fs::read_to_string(root().join("codec/proto/starling.proto")).unwrap();
    let (_, event) = schema.split_once("message Event {").unwrap();
    let (_, kinds) = event.split_once("oneof kind {").unwrap();
    let (kinds, _) = kinds.split_once('}').unwrap();
    let kinds: Vec<&str> =
        kinds.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(kinds.starts_with(&["Message", "Delivered"]), "{kinds:?}");
    let known = |code: &str| {
        let mut words = code.split(|c: char| !c.is_alphanumeric());
        words.find(|word| kinds[1..].contains(word)).map(str::to_owned)
    };
    for file in rust_files(&root().join("storage/src")) {
        let code = std::fs::read_to_string(&file).unwrap();
        assert_eq!(known(&code), None, "{}", file.display());
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let found = entries.flat_map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] });
    found.filter(|path| path.extension().is_some_and(|ending| ending == "rs")).collect()
}

#[test]
fn every_command_names_version_commit_and_protocol() {
    for command in manual::commands() {
        let version = command.render_version();
        let known = format!("{} {} (commit ", command.get_name(), env!("CARGO_PKG_VERSION"));
        assert!(version.starts_with(&known) && version.contains(", protocol 1"), "{version}");
    }
}

/// The options that help shows.
fn shown(command: &clap::Command) -> impl Iterator<Item = &str> {
    let shown = command.get_arguments().filter(|argument| !argument.is_hide_set());
    shown.filter_map(|argument| argument.get_long())
}

#[test]
fn every_command_has_completions_and_a_page() {
    let folder = tempfile::tempdir().unwrap();
    manual::write(folder.path()).unwrap();
    let file = |name: String| std::fs::read_to_string(folder.path().join(name)).unwrap();
    for command in manual::commands() {
        let name = command.get_name();
        for completions in [format!("{name}.bash"), format!("_{name}"), format!("{name}.fish")] {
            assert!(file(format!("completions/{completions}")).contains(name), "{completions}");
        }
        let page = file(format!("man/{name}.1"));
        for argument in shown(&command) {
            let escaped = argument.replace('-', "\\-");
            assert!(page.contains(&format!("\\-\\-{escaped}")), "{name}.1 lacks --{argument}");
        }
        for subcommand in command.get_subcommands().filter(|command| !command.is_hide_set()) {
            file(format!("man/{name}-{}.1", subcommand.get_name()));
        }
    }
}
