//! The specification against the code: which kind is allowed in which state.

use starling_codec::{Direction, Kind};
use starling_engine::{Phase, allowed};

#[test]
fn the_table_of_states_is_what_the_engine_does() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../protocol-spec.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mut rows = text
        .lines()
        .skip_while(|line| !line.starts_with("| kind | OPENING |"))
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    let header = rows.next().expect("the table of section 4");
    let phases: Vec<&str> = Phase::ALL.iter().map(|phase| phase.name()).collect();
    assert_eq!(header[1..], phases);
    let rows: Vec<Vec<&str>> = rows.skip(1).collect();
    let row = |name: &str| rows.iter().find(|row| row[0] == name);
    for &kind in Kind::ALL {
        let told = row(kind.name()).or(row("any other")).expect("a row");
        assert_eq!(kind.direction() == Direction::Server, told[0] == "any other");
        for (&phase, &word) in Phase::ALL.iter().zip(&told[1..]) {
            let expected = match phase {
                Phase::Checking => "waits",
                Phase::Closing => "ignored",
                _ if allowed(kind, phase) => "yes",
                _ => "closes",
            };
            assert_eq!(word, expected, "{} in {}", kind.name(), phase.name());
        }
    }
}
