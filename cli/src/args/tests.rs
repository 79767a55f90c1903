use std::path::PathBuf;

use clap::{Command as ClapCommand, CommandFactory, Parser};

use super::*;
use crate::settings::{SETTINGS, Sources, Who, dashed};

#[test]
fn the_command_line_is_consistent_and_every_command_has_an_example() {
    Cli::command().debug_assert();
    fn check(command: &ClapCommand) {
        for sub in command.get_subcommands() {
            if sub.get_name() == "help" {
                continue;
            }
            assert!(sub.get_about().is_some(), "{}", sub.get_name());
            let example = sub.get_after_help().is_some_and(|h| h.to_string().contains("Example: granary"));
            assert!(example || ["version", "run", "stop"].contains(&sub.get_name()), "{}", sub.get_name());
            check(sub);
        }
    }
    check(&Cli::command());
}

#[test]
fn every_setting_is_a_flag_of_the_process_that_it_concerns() {
    let of = |who: Who| SETTINGS.iter().filter(move |s| s.scope.concerns(who));
    let line = |words: &[&str], who: Who| {
        let flags = of(who).flat_map(|s| [format!("--{}", dashed(s.name)), "1".to_owned()]);
        Cli::try_parse_from(words.iter().map(|&w| w.to_owned()).chain(flags)).unwrap().command
    };
    let Command::Node(node) = line(&["granary", "node"], Who::Node) else { panic!("not the node command") };
    assert_eq!(node.flags.given.len(), of(Who::Node).count());
    let Command::Meta(meta) = line(&["granary", "meta", "serve"], Who::Service) else { panic!("not meta") };
    let MetaCommand::Serve { flags, .. } = meta.command else { panic!("not serve") };
    assert_eq!(flags.given.len(), of(Who::Service).count());
    assert!(SETTINGS.iter().all(|s| s.scope.concerns(Who::Node) || s.scope.concerns(Who::Service)));
}

#[test]
fn flags_after_a_subcommand_win() {
    let line = ["granary", "node", "--meta", "/a", "run", "--meta", "/b"];
    let Command::Node(node) = Cli::try_parse_from(line).unwrap().command else {
        panic!("not the node command")
    };
    let Some(NodeCommand::Run { flags }) = node.command else { panic!("not run") };
    let settings = Sources { env: Vec::new(), ..node.flags.and(flags).sources() }.resolve().unwrap();
    assert_eq!(settings.meta.folder().unwrap(), PathBuf::from("/b"));
}

#[test]
fn unknown_flags_are_refused() {
    let e = Cli::try_parse_from(["granary", "node", "--dirty-byte-max", "1"]).unwrap_err();
    assert!(e.to_string().contains("--dirty-bytes-max"), "{e}");
    assert!(Cli::try_parse_from(["granary", "status", "--dirty-bytes-max", "1"]).is_err());
}
