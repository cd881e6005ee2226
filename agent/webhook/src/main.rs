//! `sotto-webhook`: adds the sidecar to pods that ask for it. Only the sequence is here.
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use rustix::thread::CapabilitySet;
use sotto_runtime::allocator::WipingAllocator;
use sotto_runtime::{EXIT_CONFIGURATION, hardening, telemetry};
use sotto_webhook::arguments::{Arguments, Command, ServeArguments};
use sotto_webhook::certificate::{self, Files};
use sotto_webhook::render::{MAX_INPUT_BYTES, render};
use sotto_webhook::settings::Settings;
use sotto_webhook::{admin, app};

#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;

fn main() -> ExitCode {
    if let Err(error) = hardening::protect_process() {
        return refuse(format!("the process can't be protected: {error}"));
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    // Nobody installs another one in this process.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match arguments.command {
        None => serve(arguments.serve),
        Some(Command::Render { config }) => rendered(&config),
        Some(Command::Check { config }) => match Settings::load(&config) {
            Ok(settings) => {
                say(format_args!(
                    "usable: image {}, audience {}\n",
                    settings.image, settings.audience
                ));
                ExitCode::SUCCESS
            }
            Err(faults) => refuse(faults),
        },
        Some(Command::Certificate { out, dns, days }) => {
            match certificate::make(&dns, days).and_then(|made| made.write(&out)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(error),
            }
        }
        Some(Command::Probe { admin }) => match admin::probe(&admin) {
            Ok(()) => ExitCode::SUCCESS,
            Err(reason) => fail(format_args!("not ready: {reason}")),
        },
    }
}

fn serve(arguments: ServeArguments) -> ExitCode {
    if let Err(error) = telemetry::init(&arguments.log) {
        return refuse(error);
    }
    if let Err(error) = hardening::keep_only_capabilities(CapabilitySet::empty()) {
        return refuse(format!("the process can't be confined: {error}"));
    }
    let settings = match Settings::load(&arguments.config.unwrap_or_default()) {
        Ok(settings) => settings,
        Err(faults) => return refuse(faults),
    };
    let files = Files {
        certificate: arguments.tls_cert.unwrap_or_default(),
        key: arguments.tls_key.unwrap_or_default(),
    };
    match app::run(settings, files, arguments.listen, &arguments.admin) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(format_args!("{error:#}")),
    }
}

fn rendered(config: &Path) -> ExitCode {
    let settings = match Settings::load(config) {
        Ok(settings) => settings,
        Err(faults) => return refuse(faults),
    };
    let mut text = String::new();
    match std::io::stdin().take(MAX_INPUT_BYTES + 1).read_to_string(&mut text) {
        Err(error) => return fail(format_args!("standard input can't be read: {error}")),
        Ok(_) if text.len() as u64 > MAX_INPUT_BYTES => {
            return fail(format_args!("the input has more than {MAX_INPUT_BYTES} bytes"));
        }
        Ok(_) => {}
    }
    match render(&text, &settings) {
        Ok(manifests) => {
            say(manifests);
            ExitCode::SUCCESS
        }
        Err(faults) => fail(faults),
    }
}

fn usage(error: &clap::Error) -> ExitCode {
    // Help and the version are no errors, and go to standard output.
    let code = if error.use_stderr() { EXIT_CONFIGURATION } else { 0 };
    let _ = error.print();
    ExitCode::from(code)
}

fn refuse(error: impl Display) -> ExitCode {
    say_error(error);
    ExitCode::from(EXIT_CONFIGURATION)
}

fn fail(error: impl Display) -> ExitCode {
    say_error(error);
    ExitCode::FAILURE
}

#[expect(clippy::print_stdout, reason = "the result of a subcommand")]
fn say(text: impl Display) {
    print!("{text}");
}

#[expect(clippy::print_stderr, reason = "before the log, or beside it, for who started us by hand")]
fn say_error(text: impl Display) {
    eprintln!("sotto-webhook: {text}");
}
