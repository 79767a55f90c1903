//! The flags of settings, made from the table in [`crate::settings`].

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command as ClapCommand, FromArgMatches};

use crate::settings::{SETTINGS, Scope, Sources, Unit, Who, dashed};

/// The flags of settings, as they were given: those that concern `WHO`, a [`Who`] as a number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingFlags<const WHO: u8> {
    pub config: Option<PathBuf>,
    pub given: Vec<(String, String)>,
}

pub type PlaceFlags = SettingFlags<{ Who::Caller as u8 }>;

pub type NodeFlags = SettingFlags<{ Who::Node as u8 }>;

pub type ServiceFlags = SettingFlags<{ Who::Service as u8 }>;

impl<const WHO: u8> SettingFlags<WHO> {
    fn concerning(scope: Scope) -> bool {
        let who = [Who::Caller, Who::Node, Who::Service];
        who.into_iter().any(|who| who as u8 == WHO && scope.concerns(who))
    }

    /// With these in front: what `other` gives, wins.
    pub fn and<const OTHER: u8>(mut self, other: SettingFlags<OTHER>) -> NodeFlags {
        self.given.extend(other.given);
        NodeFlags { config: other.config.or(self.config), given: self.given }
    }

    pub fn sources(&self) -> Sources {
        Sources::new(self.config.clone(), self.given.clone())
    }
}

impl<const WHO: u8> Args for SettingFlags<WHO> {
    fn augment_args(command: ClapCommand) -> ClapCommand {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("Settings file [default: GRANARY_CONFIG, then /etc/granary/granary.toml if it exists]")
            .help_heading("Settings");
        let wanted = SETTINGS.iter().filter(|s| Self::concerning(s.scope));
        command.arg(config).args(wanted.map(|s| {
            let value = match s.unit {
                Unit::Path => "PATH",
                Unit::Text => "TEXT",
                Unit::Bytes => "SIZE",
                Unit::Period => "PERIOD",
                Unit::Count => "COUNT",
                Unit::Port => "PORT",
            };
            let heading = match s.scope {
                Scope::Place => "Settings",
                Scope::Process if WHO == Who::Service as u8 => "Settings of the service",
                Scope::Node | Scope::Process => "Settings of the node process",
                Scope::Service => "Settings of the service",
                Scope::Limit => "Limits (sizes like 16GiB, periods like 2s; --help shows all)",
            };
            Arg::new(s.name)
                .long(dashed(s.name))
                .value_name(value)
                .help(s.help)
                .help_heading(heading)
                .action(if s.name == "trust" { ArgAction::Append } else { ArgAction::Set })
                .hide_short_help(![Scope::Place, Scope::Service].contains(&s.scope))
        }))
    }

    fn augment_args_for_update(command: ClapCommand) -> ClapCommand {
        Self::augment_args(command)
    }
}

impl<const WHO: u8> FromArgMatches for SettingFlags<WHO> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.config = matches.get_one::<PathBuf>("config").cloned();
        for s in SETTINGS.iter().filter(|s| Self::concerning(s.scope)) {
            if let Some(values) = matches.get_many::<String>(s.name) {
                let values: Vec<&str> = values.map(String::as_str).collect();
                self.given.push((s.name.to_owned(), values.join(",")));
            }
        }
        Ok(())
    }
}
