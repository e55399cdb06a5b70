//! Which crate of the workspace may depend on which, and what the core may never reach.
//!
//! The rule is one table. `engine` and `storage` do not know each other; what passes between
//! them are types of `codec`, so that a server, a simulation and a replicated log hand them over
//! untranslated.

use cargo_metadata::{DependencyKind, Metadata, PackageId};
use std::collections::{BTreeMap, BTreeSet};

/// What a crate may depend on, and why an edge that is not here is wrong.
const ALLOWED: &[(&str, &[&str])] = &[
    ("starling-codec", &[]),
    ("starling-engine", &["starling-codec"]),
    ("starling-storage", &["starling-codec"]),
    ("starling-server", &["starling-codec", "starling-engine", "starling-storage"]),
    ("starling-client", &["starling-codec"]),
    ("starling-check", &["starling-codec"]),
    ("starling-bench", &["starling-codec", "starling-client", "starling-check"]),
    (
        "starling-sim",
        &[
            "starling-codec",
            "starling-engine",
            "starling-storage",
            "starling-client",
            "starling-check",
        ],
    ),
];

/// What tests may use from anywhere.
const FOR_TESTS: &[&str] = &["starling-client", "starling-check", "starling-sim"];

/// May depend on all; nothing depends on it.
const UNBOUND: &str = "xtask";

/// Runtimes, sockets, clocks' and disks' crates: with one of these in reach, codec and engine
/// could do I/O, and the simulation could not hold time still.
const OUTSIDE: &[&str] =
    &["async-std", "io-uring", "mio", "monoio", "rocksdb", "rusqlite", "smol", "socket2", "tokio"];

/// One crate of the workspace depends on another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    pub from: String,
    pub to: String,
    /// Only its tests, examples and benchmarks do.
    pub for_tests: bool,
}

/// The edges between the crates of the workspace, as their Cargo.toml files say.
pub fn edges(metadata: &Metadata) -> BTreeSet<Edge> {
    let members: BTreeSet<&str> =
        metadata.workspace_packages().iter().map(|package| package.name.as_str()).collect();
    metadata
        .workspace_packages()
        .iter()
        .flat_map(|package| {
            package.dependencies.iter().map(move |dependency| Edge {
                from: package.name.to_string(),
                to: dependency.name.clone(),
                for_tests: dependency.kind == DependencyKind::Development,
            })
        })
        .filter(|edge| members.contains(edge.to.as_str()))
        .collect()
}

/// A line for every edge that points the wrong way.
pub fn wrong_edges(edges: &BTreeSet<Edge>) -> Vec<String> {
    edges.iter().filter_map(|edge| wrong(edge).map(|why| complaint(edge, why))).collect()
}

fn wrong(edge: &Edge) -> Option<&'static str> {
    if edge.from == UNBOUND {
        return None;
    }
    let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == edge.from) else {
        return Some("the crate has no line in the table of xtask/src/direction.rs");
    };
    let test_help = edge.for_tests && FOR_TESTS.contains(&edge.to.as_str());
    if allowed.contains(&edge.to.as_str()) || test_help {
        return None;
    }
    Some(match (edge.from.as_str(), edge.to.as_str()) {
        (_, UNBOUND) => "nothing depends on the chores",
        ("starling-engine", "starling-storage") | ("starling-storage", "starling-engine") => {
            "engine and storage do not know each other: they meet in types of codec"
        }
        _ => "dependencies point the other way",
    })
}

fn complaint(edge: &Edge, why: &str) -> String {
    let kind = if edge.for_tests { " (for tests)" } else { "" };
    format!("{} -> {}{kind}: {why}", edge.from, edge.to)
}

/// A line for every crate of the outside world that codec or engine reaches, in whatever number
/// of steps; tests may reach what they like.
pub fn wrong_reach(metadata: &Metadata) -> Vec<String> {
    let Some(resolve) = &metadata.resolve else { return vec!["no dependency graph".to_owned()] };
    let names: BTreeMap<&PackageId, &str> =
        metadata.packages.iter().map(|package| (&package.id, package.name.as_str())).collect();
    let nodes: BTreeMap<&PackageId, _> =
        resolve.nodes.iter().map(|node| (&node.id, node)).collect();

    let mut complaints = Vec::new();
    for core in ["starling-codec", "starling-engine"] {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&PackageId> =
            names.iter().filter(|(_, name)| **name == core).map(|(id, _)| *id).collect();
        while let Some(id) = next.pop() {
            if !reached.insert(id) {
                continue;
            }
            let built_in = |dep: &&cargo_metadata::NodeDep| {
                dep.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal)
            };
            next.extend(nodes[id].deps.iter().filter(built_in).map(|dep| &dep.pkg));
        }
        complaints.extend(
            reached
                .iter()
                .map(|id| names[*id])
                .filter(|name| OUTSIDE.contains(name))
                .map(|name| format!("{core} reaches {name}: the core cannot do I/O")),
        );
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(from: &str, to: &str, for_tests: bool) -> Vec<String> {
        wrong_edges(&BTreeSet::from([Edge { from: from.into(), to: to.into(), for_tests }]))
    }

    #[test]
    fn engine_and_storage_never_meet() {
        for for_tests in [false, true] {
            assert_eq!(complaints("starling-engine", "starling-storage", for_tests).len(), 1);
            assert_eq!(complaints("starling-storage", "starling-engine", for_tests).len(), 1);
        }
    }

    #[test]
    fn tests_may_use_the_client_and_code_may_not() {
        assert!(complaints("starling-engine", "starling-client", true).is_empty());
        assert_eq!(complaints("starling-engine", "starling-client", false).len(), 1);
    }

    #[test]
    fn codec_depends_on_no_other_and_no_other_on_the_chores() {
        assert_eq!(complaints("starling-codec", "starling-engine", false).len(), 1);
        assert_eq!(complaints("starling-server", "xtask", true).len(), 1);
        assert!(complaints("xtask", "starling-server", false).is_empty());
    }

    #[test]
    fn a_crate_that_the_table_does_not_know_is_a_complaint() {
        assert_eq!(complaints("starling-new", "starling-codec", false).len(), 1);
    }
}
