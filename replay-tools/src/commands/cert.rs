//! `ledge cert`: the certificates of a cluster.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ledge_replication::certs::{Authority, CertError, CertFiles};
use serde_json::json;

use super::Context;
use crate::error::{Failure, Quit};
use crate::exit::Code;
use crate::out::Format;

const EXAMPLES: &str = "\
Examples:
  ledge cert init pki                                   a new cluster and its authority
  ledge cert cloud --ca pki --name cloud.example.com    for cloudcore: pki/cloudcore.crt and .key
  ledge cert node edge-1 --ca pki --out edge-1-pki      for the node edge-1, to be copied to it

Keep ca.key where nodes cannot read it: whoever has it can speak for every node.";

/// Make the certificates of a cluster.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Cert {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a new cluster: its id and its certificate authority (ca.crt, ca.key).
    Init {
        /// Directory for them; made if it is not there.
        dir: PathBuf,
    },
    /// Make cloudcore's certificate (cloudcore.crt, cloudcore.key).
    Cloud {
        /// Directory of the authority.
        #[arg(long, value_name = "DIR")]
        ca: PathBuf,
        /// Directory for the files [default: the authority's].
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// DNS name or IP address it is also valid for; may be repeated. Edges ask for `cloudcore` by default.
        #[arg(long = "name", value_name = "NAME")]
        names: Vec<String>,
    },
    /// Make a node's certificate (NAME.crt, NAME.key).
    Node {
        /// The node's name, as `nodeName` in manifests.
        name: String,
        /// Directory of the authority.
        #[arg(long, value_name = "DIR")]
        ca: PathBuf,
        /// Directory for the files [default: the authority's].
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

pub(crate) fn run(args: &Cert, context: &mut Context) -> Result<Code, Quit> {
    match &args.what {
        What::Init { dir } => {
            let authority = Authority::create(dir).map_err(failure)?;
            let cluster = authority.cluster().to_string();
            if context.out.format() == Format::Table {
                context
                    .out
                    .text(&format!("cluster {cluster}: authority in {}\n", dir.display()))?;
            } else {
                context
                    .out
                    .document(&json!({"cluster": cluster, "ca": dir.join("ca.crt")}))?;
            }
        }
        What::Cloud { ca, out, names } => {
            let files = load(ca)?
                .issue_cloud(names, out.as_deref().unwrap_or(ca))
                .map_err(failure)?;
            tell(context, &files)?;
        }
        What::Node { name, ca, out } => {
            let files = load(ca)?
                .issue_node(name, out.as_deref().unwrap_or(ca))
                .map_err(failure)?;
            tell(context, &files)?;
        }
    }
    Ok(Code::Yes)
}

fn load(dir: &Path) -> Result<Authority, Quit> {
    Authority::load(dir).map_err(|err| {
        Failure::new(err.to_string())
            .hint(format!(
                "make an authority first: ledge cert init {}",
                dir.display()
            ))
            .into()
    })
}

fn tell(context: &mut Context, files: &CertFiles) -> Result<(), Quit> {
    if context.out.format() == Format::Table {
        let text = format!(
            "--ca {} --cert {} --key {}\n",
            files.ca.display(),
            files.cert.display(),
            files.key.display()
        );
        return context.out.text(&text);
    }
    context
        .out
        .document(&json!({"ca": files.ca, "cert": files.cert, "key": files.key}))
        .map(|_| ())
}

fn failure(err: CertError) -> Quit {
    Failure::new(err.to_string()).into()
}
