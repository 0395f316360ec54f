//! `ledge quickstart`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::Context;
use crate::error::{Failure, Quit};
use crate::exit::Code;
use crate::out::Format;
use crate::quickstart::claims::Claim;
use crate::quickstart::daemons::find_programs;
use crate::quickstart::site::RegisterMap;
use crate::quickstart::story::{self, Choices, Narrator};

const LIMIT: Duration = Duration::from_secs(60);
const ABOUT: &str = "\
Starts real cloudcore and edgecore processes and a Modbus device on loopback, shows telemetry arriving and a
desired value reaching the device; then cuts the link, changes a desired value in the cloud, kills edgecore with
SIGKILL, starts it again offline, restores the link, and checks that nothing was lost, doubled or reordered.
Ends within a minute; exits with 1 when any claim fails.

Examples:
  ledge quickstart                                  needs nothing, leaves nothing
  ledge quickstart --keep demo                      then: ledge sql demo/edge \"SELECT * FROM samples LIMIT 5\"
  ledge quickstart --device 192.0.2.7:502           your device: reads holding register 0, WRITES register 10";

/// See the main job done in a minute, with real daemons, and every claim checked.
#[derive(Debug, Args)]
#[command(after_long_help = ABOUT)]
pub struct Quickstart {
    /// Use this Modbus TCP device (unit 1) instead of a simulated one.
    #[arg(long, value_name = "HOST:PORT")]
    device: Option<String>,
    /// Holding register read as temperature, in tenths; with --device.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "device")]
    read_register: u16,
    /// Holding register written as alarm threshold, in tenths; with --device. It is written to.
    #[arg(long, value_name = "N", default_value_t = 10, requires = "device")]
    write_register: u16,
    /// Keep everything in this new or empty directory, for exploring afterwards.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

pub(crate) fn run(args: &Quickstart, context: &mut Context) -> Result<Code, Quit> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|err| Failure::new(format!("cannot start the runtime: {err}")))?;
    let (dir, _temporary) = directory(args)?;
    // Not part of the story's minute: from a fresh checkout, this builds them.
    let programs = runtime
        .block_on(find_programs())
        .map_err(|err| Failure::new(err.to_string()))?;
    let choices = Choices {
        dir,
        programs,
        device: args.device.as_deref().map(resolve).transpose()?,
        registers: RegisterMap {
            temperature: args.read_register,
            setpoint: args.write_register,
            counter: args.device.is_none().then_some(2),
        },
    };
    let quiet = context.out.format() != Format::Table;
    let mut closed = None;
    let mut tell = |line: &str| {
        if quiet {
            writeln!(std::io::stderr(), "{line}").ok();
        } else if closed.is_none() {
            closed = context
                .out
                .text(&format!("{line}\n"))
                .and_then(|()| context.out.flush())
                .err();
        }
    };
    tell("Ledge quickstart: one cloud, one edge, one device, and a link that will fail.");
    let mut narrator = Narrator::new(&mut tell);
    let told =
        runtime.block_on(async { tokio::time::timeout(LIMIT, story::tell(&choices, &mut narrator)).await });
    let elapsed = narrator.elapsed();
    let claims = match told {
        Ok(Ok(claims)) => claims,
        Ok(Err(err)) => return Err(Failure::new(err.to_string()).hint(explore_hint(args)).into()),
        Err(_) => {
            return Err(Failure::new(format!("not done after {LIMIT:?}"))
                .hint(explore_hint(args))
                .into());
        }
    };
    report(args, context, &claims, elapsed)
}

fn report(
    args: &Quickstart,
    context: &mut Context,
    claims: &[Claim],
    elapsed: Duration,
) -> Result<Code, Quit> {
    let failed = claims.iter().filter(|claim| !claim.holds).count();
    if context.out.format() == Format::Table {
        context.out.text("\n")?;
        for claim in claims {
            let mark = if claim.holds { "ok    " } else { "FAILED" };
            context.out.text(&format!(
                "{mark} {}\n       {}\n",
                claim.claim,
                claim.seen.replace('\n', "\n       ")
            ))?;
        }
        if let Some(dir) = &args.keep {
            context.out.text(&format!(
                "\nKept in {0}. Try: ledge log info {0}/edge; ledge at {0}/cloud --time -20s; ledge sql {0}/edge \"SELECT * FROM events\"\n",
                dir.display()
            ))?;
        }
        let verdict = if failed == 0 {
            format!(
                "\nEvery claim holds ({} of {}), in {:.1} s.\n",
                claims.len(),
                claims.len(),
                elapsed.as_secs_f64()
            )
        } else {
            format!("\n{failed} of {} claims FAILED.\n", claims.len())
        };
        context.out.text(&verdict)?;
    } else {
        context.out.document(&json!({
            "claims": claims, "failed": failed, "seconds": elapsed.as_secs_f64(), "kept": args.keep,
        }))?;
    }
    Ok(if failed == 0 { Code::Yes } else { Code::No })
}

fn explore_hint(args: &Quickstart) -> String {
    match &args.keep {
        Some(dir) => format!("the daemons' logs are in {}", dir.display()),
        None => "run it again with --keep DIR and look at DIR/cloudcore.log and DIR/edgecore.log".to_owned(),
    }
}

/// The directory to use, and what removes it afterwards when it is not kept.
fn directory(args: &Quickstart) -> Result<(PathBuf, Option<tempfile::TempDir>), Quit> {
    let Some(dir) = &args.keep else {
        let temporary = tempfile::Builder::new()
            .prefix("ledge-quickstart-")
            .tempdir()
            .map_err(|err| Failure::new(format!("cannot make a temporary directory: {err}")))?;
        return Ok((temporary.path().to_owned(), Some(temporary)));
    };
    if std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Failure::usage(format!("{} is not empty", dir.display()))
            .hint("choose a new directory, or remove this one")
            .into());
    }
    std::fs::create_dir_all(dir).map_err(|err| Failure::new(format!("{}: {err}", dir.display())))?;
    let dir = dir
        .canonicalize()
        .map_err(|err| Failure::new(format!("{}: {err}", dir.display())))?;
    Ok((dir, None))
}

fn resolve(device: &str) -> Result<SocketAddr, Quit> {
    use std::net::ToSocketAddrs;
    let addresses = device.to_socket_addrs().map_err(|err| {
        Failure::usage(format!("--device {device}: {err}")).hint("write HOST:PORT, for example 192.0.2.7:502")
    })?;
    addresses
        .into_iter()
        .next()
        .ok_or_else(|| Failure::usage(format!("--device {device}: no such address")).into())
}
