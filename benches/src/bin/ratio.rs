//! Prints how close Ledge comes to the raw limits of this machine, one JSON object per line.

use std::path::PathBuf;
use std::process::ExitCode;

use ledge_benches::ratio::{BENCHES, Bench, Plan, fill_and_die};

const USAGE: &str = "usage: ratio [--quick] [--dir DIR] [ID...]";

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
    let mut plan = Plan::full();
    let mut dir = std::env::temp_dir();
    let mut chosen: Vec<&Bench> = Vec::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--quick" => plan = Plan::quick(),
            "--dir" => match args.next() {
                Some(value) => dir = PathBuf::from(value),
                None => return Ok(usage("--dir needs a directory")),
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
            id => match BENCHES.iter().find(|bench| bench.id == id) {
                Some(bench) => chosen.push(bench),
                None => return Ok(usage(&format!("there is no benchmark `{id}`"))),
            },
        }
    }
    if chosen.is_empty() {
        chosen = BENCHES.iter().collect();
    }
    for bench in chosen {
        for row in bench.run(&dir, plan)? {
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
