//! The command line.

mod check;
mod ciphers;
mod doctor;
mod events;
mod import;
mod keys;
mod new;
mod status;

use std::ffi::CStr;
use std::io::{self, Write};
use std::panic::{self, PanicHookInfo};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use tund_import::Wire;

use crate::config::{self, LogTo};
use crate::control::api::Method;
use crate::engine;
use crate::helper::call;
use crate::helper::proxy;
use crate::helper::resolve;
use crate::parent::start;
use crate::privsep::background;
use crate::privsep::spawn::Role;
use crate::report::exit::{self, BUG, Fatal, USAGE};
use crate::report::output::Output;
use crate::report::stderr;
use crate::sys;
use crate::sys::memory;
use status::Form;

/// Joins two machines or two Ethernet segments over any IP network.
#[derive(Debug, Parser)]
#[command(name = "tund", bin_name = "tund", version, arg_required_else_help = true)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Run the link of this file in the foreground
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
    /// Log more: -v is --verb 3, each further v one level
    #[arg(short, action = ArgAction::Count, conflicts_with = "verb")]
    verbose: u8,
    /// Run in the background, and return once the link runs; log to syslog
    #[arg(long, conflicts_with = "inetd")]
    daemon: bool,
    #[arg(long = background::OPTION, hide = true)]
    background: bool,
    /// Append the keys in use to this file, for a decoder; anyone who has it can read the link
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    key_log: Option<PathBuf>,
    /// Use descriptor 0 as the socket, from inetd or xinetd; log to syslog
    #[arg(long)]
    inetd: bool,
}

#[derive(Debug, Args)]
struct Common {
    /// Read files relative to this directory, and run scripts there
    #[arg(long, value_name = "DIR")]
    cd: Option<PathBuf>,
    /// UDP port or service name of `listen`, and of each remote without a port
    #[arg(long, value_name = "PORT")]
    port: Option<String>,
    /// Log level, 0 to 9: 0 fatal, 1 default, 3 normal, 5 a letter for each packet
    #[arg(long, value_name = "N")]
    verb: Option<u8>,
    /// Accept key files that others can read
    #[arg(long)]
    allow_open_keys: bool,
}

#[derive(Debug, Args)]
struct Named {
    /// The link's name, or its configuration file
    #[arg(value_name = "NAME")]
    link: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check configuration files and show every problem
    Check {
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        #[command(flatten)]
        common: Common,
        /// Also check this host's addresses, routes, ports and names
        #[arg(long)]
        host: bool,
        /// Print the findings as a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Create both files and the key of a new link, and show how to start it
    New(new::Request),
    /// Generate a shared secret for both ends
    Genkey {
        /// Write it to this new file, for its owner only, instead of standard output
        #[arg(short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Generate a private key
    Keypair {
        /// Write it to this new file, for its owner only, and show the public key
        #[arg(short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Show the public key of a private key
    Pubkey {
        /// File of the private key, instead of standard input
        #[arg(value_name = "FILE")]
        input: Option<PathBuf>,
    },
    /// Show the state of links: all in a table, or one in full. Exits with 0 if they are up, else with 1
    Status {
        /// The link's name, or its configuration file
        #[arg(value_name = "NAME")]
        link: Option<String>,
        /// Print a JSON array
        #[arg(long)]
        json: bool,
        /// Refresh it every second
        #[arg(long)]
        watch: bool,
        /// Show the top senders on a bridged link in the last minute
        #[arg(long, requires = "link")]
        macs: bool,
    },
    /// Follow what happens to links: a line for each change of state and each condition that begins or ends
    Events {
        /// The link's name, or its configuration file
        #[arg(value_name = "NAME")]
        link: Option<String>,
        /// Print each as a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print the counters of links as OpenMetrics text
    Stats {
        /// The link's name, or its configuration file
        #[arg(value_name = "NAME")]
        link: Option<String>,
    },
    /// Make a link read its configuration and keys again, as SIGHUP does, and show what has changed
    Reload(Named),
    /// Make a link switch to new traffic keys
    Rekey(Named),
    /// Make a link look up its peer and reconnect
    Reconnect(Named),
    /// Stop a link
    Down(Named),
    /// Measure each cipher with each library, and show which one links use on this machine
    BenchCiphers,
    /// Find what prevents a working link
    Doctor {
        /// The configuration file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Print the findings as a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Translate an OpenVPN configuration with a static key
    Import {
        /// The OpenVPN configuration
        #[arg(value_name = "FILE.conf")]
        file: PathBuf,
        /// Also write its key to this new file, for its owner only; converted unless the wire format is kept
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Keep the wire format, for a peer that stays OpenVPN
        #[arg(long, value_name = "FORMAT", value_parser = PossibleValuesParser::new(["openvpn"]).map(|_| Wire::OpenVpn))]
        wire: Option<Wire>,
    },
    /// Print the completions of a shell
    Completions {
        /// Which shell
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Print the JSON Schema of configuration files, for editors
    Schema,
    /// Print the command line's manual page, in roff
    Man,
}

/// Runs the program with this process's arguments. A program that embeds tund calls it if its own `argv[0]` is [`crate::privsep::spawn::PROGRAM`].
pub fn main() -> ExitCode {
    panic::set_hook(Box::new(report_panic));
    // Changes to the host are undone while unwinding.
    panic::catch_unwind(dispatch).unwrap_or(ExitCode::from(BUG))
}

fn dispatch() -> ExitCode {
    if let Err(error) = memory::leave_no_core() {
        return end(Err(Fatal::new(exit::FAILED, format!("cannot forbid core dumps: {error}"))));
    }
    if let Err(error) = sys::pass_nothing_on() {
        return end(Err(Fatal::new(
            exit::FAILED,
            format!("cannot mark descriptors as closed on exec: {error}"),
        )));
    }
    let role = std::env::args_os().nth(1).as_deref().and_then(Role::from_argument);
    if role.is_some()
        && let Err(fatal) = hide()
    {
        return end(Err(fatal));
    }
    match role {
        Some(Role::Engine) => named(c"tund-engine", engine::main),
        Some(Role::Resolver) => named(c"tund-resolver", resolve::main),
        Some(Role::Caller) => named(c"tund-caller", call::main),
        Some(Role::ProxyCaller) => named(c"tund-proxy", proxy::main),
        None => match Cli::try_parse() {
            Ok(cli) => run(cli),
            Err(error) => refuse(&error),
        },
    }
}

/// Executed from /proc/self/exe, the process would be called "exe" in ps and in messages about its port.
fn named(name: &CStr, main: fn() -> ExitCode) -> ExitCode {
    // A failure is only cosmetic.
    let _ = rustix::thread::set_name(name);
    main()
}

/// Hides this process's memory, which will hold keys.
fn hide() -> Result<(), Fatal> {
    memory::hide()
        .map_err(|error| Fatal::new(exit::FAILED, format!("cannot hide this process's memory: {error}")))
}

fn run(cli: Cli) -> ExitCode {
    // A link examines the process that asks it, and must be able to see it.
    let asks = matches!(
        cli.command,
        Some(
            Command::Status { .. }
                | Command::Events { .. }
                | Command::Stats { .. }
                | Command::Reload { .. }
                | Command::Rekey { .. }
                | Command::Reconnect { .. }
                | Command::Down { .. }
                | Command::Doctor { .. }
        )
    );
    if !asks && let Err(fatal) = hide() {
        return end(Err(fatal));
    }
    if cli.daemon {
        return background::launch().unwrap_or_else(|fatal| end(Err(fatal)));
    }
    if cli.background {
        background::begin();
    }
    match cli.command {
        Some(Command::Check { files, common, host, json }) => {
            let Common { cd, port, verb, allow_open_keys } = common;
            check::run(&check::Options { files, cd, port, verb, allow_open_keys, host, json })
        }
        Some(Command::New(request)) => new::run(request).unwrap_or_else(|fatal| end(Err(fatal))),
        Some(Command::Genkey { output }) => end(keys::genkey(output.as_deref())),
        Some(Command::Keypair { output }) => end(keys::keypair(output.as_deref())),
        Some(Command::Pubkey { input }) => end(keys::pubkey(input.as_deref())),
        Some(Command::Status { link, json, watch, macs }) => {
            status::status(link.as_deref(), Form { json, watch, macs })
                .unwrap_or_else(|fatal| end(Err(fatal)))
        }
        Some(Command::Events { link, json }) => end(events::run(link.as_deref(), json)),
        Some(Command::Stats { link }) => end(status::stats(link.as_deref())),
        Some(Command::Reload(Named { link })) => end(status::command(&link, Method::Reload)),
        Some(Command::Rekey(Named { link })) => end(status::command(&link, Method::Rekey)),
        Some(Command::Reconnect(Named { link })) => end(status::command(&link, Method::Reconnect)),
        Some(Command::Down(Named { link })) => end(status::command(&link, Method::Down)),
        Some(Command::BenchCiphers) => end(print(ciphers::table(&engine::ciphers::measured()))),
        Some(Command::Doctor { file, json }) => doctor::run(&file, json),
        Some(Command::Import { file, key, wire }) => {
            end(import::import(&file, key.as_deref(), wire.unwrap_or_default()))
        }
        Some(Command::Completions { shell }) => end(print(completions(shell))),
        Some(Command::Schema) => end(print(format!("{:#}\n", config::schema::json_schema()))),
        Some(Command::Man) => end(manual().and_then(print)),
        None => {
            let Common { cd, port, verb, allow_open_keys } = cli.common;
            let Some(config) = cli.config else { return usage("--config FILE is missing") };
            let verb = verb.or(level(cli.verbose));
            let (inetd, key_log) = (cli.inetd, cli.key_log);
            start::run(&start::Options { config, cd, port, verb, allow_open_keys, inetd, key_log })
        }
    }
}

fn completions(shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tund", &mut text);
    text
}

/// Writes one page with every subcommand.
fn manual() -> Result<Vec<u8>, Fatal> {
    let failed = |error: io::Error| Fatal::new(exit::FAILED, error);
    let mut text = Vec::new();
    let mut command = Cli::command();
    command.build();
    let page = |command: clap::Command| clap_mangen::Man::new(command).section("8");
    page(command.clone()).render(&mut text).map_err(failed)?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        writeln!(text, ".SH \"{}\"", sub.get_name().to_uppercase()).map_err(failed)?;
        let page = page(sub.clone());
        page.render_description_section(&mut text).map_err(failed)?;
        page.render_synopsis_section(&mut text).map_err(failed)?;
        page.render_options_section(&mut text).map_err(failed)?;
    }
    Ok(text)
}

fn print(text: impl AsRef<[u8]>) -> Result<(), Fatal> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_ref()).and_then(|()| stdout.flush()).map_err(unwritten)
}

fn unwritten(error: io::Error) -> Fatal {
    let message = match error.kind() {
        // The reader has enough.
        io::ErrorKind::BrokenPipe => String::new(),
        _ => format!("cannot write standard output: {error}"),
    };
    Fatal::new(exit::FAILED, message)
}

/// The level for `count` times `-v`.
fn level(count: u8) -> Option<u8> {
    (count > 0).then(|| count.saturating_add(2).min(9))
}

fn usage(message: &str) -> ExitCode {
    refuse(&Cli::command().error(clap::error::ErrorKind::InvalidValue, message))
}

/// Shows what is wrong with the command line, or the requested help. With `--inetd` standard error is a socket.
fn refuse(error: &clap::Error) -> ExitCode {
    if std::env::args_os().any(|argument| argument == "--inetd") && error.use_stderr() {
        let text = error.to_string();
        Output::new(LogTo::Syslog, "command line").fatal(text.lines().next().unwrap_or_default());
    } else if let Err(failed) = error.print()
        && !error.use_stderr()
    {
        return end(Err(unwritten(failed)));
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE))
}

fn end(result: Result<(), Fatal>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            if !fatal.message.is_empty() {
                stderr::show(&format!("tund: {fatal}\n"));
            }
            ExitCode::from(fatal.code)
        }
    }
}

fn report_panic(info: &PanicHookInfo<'_>) {
    let bug = exit::bug(info);
    if log::log_enabled!(log::Level::Error) {
        log::error!("{bug}");
    } else {
        stderr::show(&format!("tund: {bug}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_v_is_a_level() {
        let levels = [0, 1, 2, 3, 200].map(level);
        assert_eq!(levels, [None, Some(3), Some(4), Some(5), Some(9)]);
    }
}
