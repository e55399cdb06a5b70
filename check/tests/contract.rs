//! docs/delivery-contract.md promises nothing that is not checked.

mod support;

use starling_check::Property;
use std::collections::BTreeSet;
use support::planted;

const TEXT: &str = include_str!("../../docs/delivery-contract.md");
/// Headings whose sections promise nothing.
const NO_PROMISES: &[&str] = &["What is not promised", "Planted faults"];
/// What finds faults beside the properties of a history.
const SIMULATION: &str = "simulation";

/// The sentences of promises, each with the names at its end.
fn promises() -> Vec<(String, Vec<String>)> {
    let sections = TEXT.split("\n## ").skip(1);
    let promising =
        sections.filter(|section| !NO_PROMISES.iter().any(|heading| section.starts_with(heading)));
    let mut promises = Vec::new();
    for section in promising {
        let (heading, body) = section.split_once('\n').unwrap();
        let mut items = body.split("\n- ");
        // What stands before the list would be a promise that nobody looks at.
        assert_eq!(items.next(), Some(""), "{heading} begins with something else than its list");
        let items: Vec<&str> = items.collect();
        assert!(!items.is_empty(), "{heading} has no list of promises");
        for item in items {
            let item = item.split_whitespace().collect::<Vec<_>>().join(" ");
            // A fault's name before its promises.
            let item = match item.strip_prefix("**").and_then(|item| item.split_once("** ")) {
                Some((_, promises)) => promises.to_owned(),
                None => item,
            };
            let sentences = item.split_inclusive(". ").map(|sentence| sentence.trim().to_owned());
            promises.extend(sentences.map(|sentence| {
                let names = names_at_end(&sentence);
                (sentence, names)
            }));
        }
    }
    promises
}

fn names_at_end(sentence: &str) -> Vec<String> {
    let names = sentence.strip_suffix("].").and_then(|sentence| sentence.rsplit_once('['));
    let names = names.map(|(_, names)| names.split(", ").map(str::to_owned).collect());
    names.unwrap_or_default()
}

/// The rows of the table of planted faults: fault, where, by what.
fn table() -> Vec<[String; 3]> {
    let (_, section) = TEXT.split_once("## Planted faults").unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    let cells = rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [fault, place, property] = cells[..] else { panic!("{row}") };
        [fault, place, property].map(str::to_owned)
    });
    cells.collect()
}

fn known() -> BTreeSet<&'static str> {
    Property::ALL.iter().map(|property| property.name()).collect()
}

#[test]
fn every_promise_names_its_proof() {
    let promises = promises();
    assert!(promises.len() > 30, "the walk finds the promises");
    for (sentence, names) in &promises {
        assert!(!names.is_empty(), "nothing proves: {sentence}");
        for name in names {
            assert!(known().contains(&**name), "{name} is no property: {sentence}");
        }
    }
    let named: BTreeSet<&str> =
        promises.iter().flat_map(|(_, names)| names).map(String::as_str).collect();
    assert_eq!(named, known(), "every property has its promise");
}

#[test]
fn every_property_is_turned_red_by_a_planted_fault() {
    let table = table();
    let mut found_by: BTreeSet<&str> = table.iter().map(|[.., finder]| &**finder).collect();
    found_by.remove(SIMULATION);
    assert_eq!(found_by, known());
}

#[test]
fn the_table_has_the_faults_that_are_planted() {
    let lists = [("history", planted::ALL), ("restored history", planted::OF_A_RESTORE)];
    for (place, planted) in lists {
        let planted = planted
            .iter()
            .map(|planted| [planted.fault, place, planted.property.name()].map(str::to_owned));
        let in_table = table().into_iter().filter(|[_, of, _]| of == place);
        assert_eq!(in_table.collect::<Vec<_>>(), planted.collect::<Vec<_>>());
    }
}
