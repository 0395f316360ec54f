//! Prints how close Ledge comes to the raw limits of this machine, one JSON object per line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ledge_benches::ratio::{BENCHES, Bench, Perf, Plan, Side, fill_and_die, serve_raw};

const USAGE: &str = "usage: ratio [--quick] [--dir DIR] [--only raw|ours] [--perf CTL,ACK] [ID...]";

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(code) => code,
        Err(err) => {
            eprintln!("ratio: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Vec<String>) -> anyhow::Result<ExitCode> {
    let mut dir = std::env::temp_dir();
    let mut chosen: Vec<(&Bench, String)> = Vec::new();
    let (mut quick, mut only, mut perf) = (false, None, None);
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--quick" => quick = true,
            "--dir" => match args.next() {
                Some(value) => dir = PathBuf::from(value),
                None => return Ok(usage("--dir needs a directory")),
            },
            "--only" => match args.next().as_deref() {
                Some("raw") => only = Some(Side::Raw),
                Some("ours") => only = Some(Side::Ours),
                _ => return Ok(usage("--only needs raw or ours")),
            },
            "--perf" => match args.next().as_deref().and_then(|fifos| fifos.split_once(',')) {
                Some((control, ack)) => perf = Some(Perf::open(Path::new(control), Path::new(ack))?),
                None => return Ok(usage("--perf needs the two FIFOs given to perf record --control")),
            },
            "--help" | "-h" => {
                println!("{USAGE}\n\n{}", list());
                return Ok(ExitCode::SUCCESS);
            }
            "--fill-and-die" => {
                // The other half of B2c, which starts it.
                let (Some(dir), Some(mib)) = (args.next(), args.next()) else {
                    return Ok(usage("DIR MIB"));
                };
                fill_and_die(&PathBuf::from(dir), mib.parse()?)?;
            }
            "--serve-raw" => {
                // The other half of B3c, which starts it.
                let Some(pki) = args.next() else {
                    return Ok(usage("PKI"));
                };
                serve_raw(Path::new(&pki))?;
                return Ok(ExitCode::SUCCESS);
            }
            id => match BENCHES.iter().find(|bench| bench.has(id)) {
                Some(bench) => chosen.push((bench, arg)),
                None => return Ok(usage(&format!("there is no benchmark `{id}`"))),
            },
        }
    }
    if chosen.is_empty() {
        chosen = BENCHES.iter().map(|bench| (bench, bench.id.to_owned())).collect();
    }
    let plan = Plan {
        only,
        perf,
        ..if quick { Plan::quick() } else { Plan::full() }
    };
    for (bench, id) in chosen {
        for row in bench.run(&id, &dir, &plan)? {
            println!("{}", serde_json::to_string(&row)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn usage(problem: &str) -> ExitCode {
    eprintln!("ratio: {problem}\n{USAGE}\n\n{}", list());
    ExitCode::from(2)
}

fn list() -> String {
    let lines: Vec<String> = BENCHES
        .iter()
        .map(|bench| format!("  {:<5} {}", bench.id, bench.about))
        .collect();
    lines.join("\n")
}
