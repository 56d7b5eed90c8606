//! `--help` of every command: each has an example.

use super::Place;

const COMMANDS: &[&[&str]] = &[
    &[],
    &["run"],
    &["call"],
    &["result"],
    &["plugins"],
    &["plugins", "list"],
    &["plugins", "inspect"],
    &["plugins", "check"],
    &["queues"],
    &["purge"],
    &["dead"],
    &["dead", "list"],
    &["dead", "show"],
    &["dead", "retry"],
    &["dead", "purge"],
    &["config"],
    &["new"],
    &["build"],
    &["doctor"],
    &["bench"],
    &["completions"],
];

#[test]
fn every_command_explains_itself() {
    let place = Place::new();
    for command in COMMANDS {
        let arguments: Vec<&str> = command.iter().copied().chain(["--help"]).collect();
        let help = place.run(&arguments).ok();
        assert!(help.contains("Example"), "`rwork {}` shows no example", command.join(" "));
        // The global options are the same everywhere; the top level's snapshot has them.
        let own = match help.split_once("\nGlobal options:") {
            Some((own, rest)) if !command.is_empty() => {
                let after = rest.split_once("\n\n").map_or("", |(_, after)| after);
                format!("{own}\n[global options]\n\n{after}")
            }
            _ => help,
        };
        let name = if command.is_empty() { "help".to_owned() } else { format!("help-{}", command.join("-")) };
        insta::assert_snapshot!(name, own);
    }
}

#[test]
fn no_command_is_forgotten() {
    let help = Place::new().run(&["--help"]).ok();
    let listed = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next());
    for command in listed {
        assert!(COMMANDS.iter().any(|known| known.first() == Some(&command)), "`{command}` has no snapshot");
    }
}

#[test]
fn the_version_names_the_engine() {
    let version = Place::new().run(&["--version"]).ok();
    let words: Vec<&str> = version.split_whitespace().collect();
    assert!(
        matches!(words.as_slice(), ["rwork", _, "(wasmtime", engine] if engine.starts_with("48.")),
        "{version}"
    );
}

#[test]
fn completions_know_the_commands() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = place.run(&["completions", shell]).ok();
        assert!(script.contains("dead") && script.contains("max-in-flight"), "{shell}");
    }
}
