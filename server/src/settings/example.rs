//! The example file, made from the definition of the flags.

use super::CommandLine;
use clap::{Arg, CommandFactory};
use std::fmt::Write;

/// A settings file with every setting commented out: its meaning and its default.
pub fn example_file() -> String {
    let mut file = String::from(
        "# Settings of starling-server. The environment (STARLING_...) and the flags of the\n\
         # command line go before what stands here. Every line below shows a default.\n",
    );
    let command = CommandLine::command();
    for argument in command.get_arguments().filter(|argument| is_setting(argument)) {
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let (meaning, computed) = match help.split_once(" [default: ") {
            Some((meaning, default)) => (meaning, default.strip_suffix(']')),
            None => (help.as_str(), None),
        };
        file.push('\n');
        wrap(&mut file, meaning);
        if let Some(computed) = computed {
            wrap(&mut file, &format!("Default: {computed}."));
        }
        let default = argument.get_default_values().first().map(|value| value.to_string_lossy());
        let value = default.map_or_else(|| "...".to_owned(), |default| toml_value(&default));
        // Writing to a String cannot fail.
        let _ = writeln!(file, "# {} = {value}", argument.get_id());
    }
    file
}

/// The settings proper take values and may stand in a file; the path of the file may not.
fn is_setting(argument: &Arg) -> bool {
    argument.get_action().takes_values() && argument.get_id() != "config"
}

fn toml_value(text: &str) -> String {
    let plain = text.parse::<u64>().is_ok() || text.parse::<bool>().is_ok();
    if plain { text.to_owned() } else { format!("{text:?}") }
}

fn wrap(file: &mut String, text: &str) {
    let mut column = 0;
    for word in text.split_whitespace() {
        if column == 0 || column + 1 + word.len() > 95 {
            file.push_str(if column == 0 { "# " } else { "\n# " });
            column = 2;
        } else {
            file.push(' ');
            column += 1;
        }
        file.push_str(word);
        column += word.len();
    }
    file.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Written;

    #[test]
    fn the_example_with_its_lines_uncommented_is_the_defaults() {
        let uncommented: String = example_file()
            .lines()
            .filter_map(|line| line.strip_prefix("# "))
            .filter(|line| line.contains(" = ") && !line.ends_with("..."))
            .map(|line| format!("{line}\n"))
            .collect();
        let written: Written = toml::from_str(&uncommented).unwrap();
        assert_eq!(written, Written::defaults());
    }

    #[test]
    fn every_setting_has_a_meaning() {
        for argument in CommandLine::command().get_arguments() {
            assert!(argument.get_help().is_some(), "{} has no help", argument.get_id());
        }
    }
}
