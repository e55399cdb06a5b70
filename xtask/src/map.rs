//! docs/ARCHITECTURE.md names the files and functions that a message passes, in order. This
//! reads those lines and looks whether what they name is still there.

use std::path::Path;

/// A numbered line of the map: "1. `server/src/net/connection.rs` `read_ready`".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waypoint {
    pub file: String,
    pub function: String,
}

/// The waypoints of a text: numbered lines that begin with a Rust file and a function, both in
/// backquotes.
pub fn waypoints(text: &str) -> Vec<Waypoint> {
    text.lines().filter_map(waypoint).collect()
}

fn waypoint(line: &str) -> Option<Waypoint> {
    let (number, rest) = line.trim_start().split_once(". `")?;
    number.parse::<u32>().ok()?;
    let mut parts = rest.split('`');
    let file = parts.next().filter(|file| file.ends_with(".rs"))?;
    let function = parts.nth(1)?;
    Some(Waypoint { file: file.to_owned(), function: function.to_owned() })
}

/// Why a waypoint leads nowhere; `None` when it leads somewhere.
pub fn lost(root: &Path, waypoint: &Waypoint) -> Option<String> {
    let Waypoint { file, function } = waypoint;
    let Ok(source) = std::fs::read_to_string(root.join(file)) else {
        return Some(format!("{file} is not there"));
    };
    // `Type::function` is looked for by its last part; so is `function()`.
    let name = function.trim_end_matches("()").rsplit("::").next().unwrap_or(function);
    let defined = ["(", "<"].iter().any(|next| source.contains(&format!("fn {name}{next}")));
    (!defined).then(|| format!("{file} has no function {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waypoint_is_a_numbered_file_and_function() {
        let text = "# Map\n1. `a/src/b.rs` `Type::run`: reads\n2. prose `c.rs`\n- `d.rs` `e`\n";
        let expected = Waypoint { file: "a/src/b.rs".into(), function: "Type::run".into() };
        assert_eq!(waypoints(text), [expected]);
    }

    #[test]
    fn a_function_is_found_in_its_file_only() {
        let here = |function: &str| Waypoint {
            file: "xtask/src/map.rs".into(),
            function: function.into(),
        };
        assert_eq!(lost(crate::root(), &here("Map::waypoints")), None);
        assert_eq!(lost(crate::root(), &here("lost()")), None);
        assert!(lost(crate::root(), &here("no_such_function")).is_some());
        let gone = Waypoint { file: "xtask/src/gone.rs".into(), function: "run".into() };
        assert!(lost(crate::root(), &gone).is_some());
    }
}
