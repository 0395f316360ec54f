//! cloudcore: read the configuration, build, run, drain.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use ledge_cloud::config::{Args, Config};
use ledge_cloud::daemon::Daemon;

/// Exit code for a configuration that cannot be used (EX_CONFIG of sysexits.h): restarting will not help.
const EXIT_CONFIG: u8 = 78;

fn main() -> ExitCode {
    rustls::crypto::ring::default_provider().install_default().ok();
    let args = Args::parse();
    if let Some(file) = args.file_to_print() {
        print!("{file}");
        return ExitCode::SUCCESS;
    }
    let config = match Config::load(&args) {
        Ok(config) => config,
        Err(err) => {
            eprintln!("error: {err}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    if args.check_config {
        println!("configuration is valid");
        return ExitCode::SUCCESS;
    }
    let load = Arc::new(move || {
        Config::load(&args)
            .map(|config| config.disk)
            .map_err(|err| err.to_string())
    });
    match Daemon::build_and_run(config, load) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("error: {err}");
            ExitCode::FAILURE
        }
    }
}
