//! The real kubectl, as a user has it. `LEDGE_KUBECTL` names the program.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::programs;

/// Nothing takes this long unless it fails: the machine may be slow and busy.
const SOON: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// kubectl, for one API server.
pub(crate) struct Kubectl {
    program: PathBuf,
    home: PathBuf,
    kubeconfig: PathBuf,
    server: Option<String>,
}

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) ok: bool,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Kubectl {
    /// For the API that `kubeconfig` names, with a home in `dir`; `None`: `what` is skipped.
    pub(crate) fn new(what: &str, kubeconfig: &Path, dir: &Path) -> Option<Kubectl> {
        let [program] = programs::or_skip(what, ["LEDGE_KUBECTL"])?;
        Some(Kubectl {
            program,
            home: dir.join("home"),
            kubeconfig: kubeconfig.to_owned(),
            server: None,
        })
    }

    /// The same program with another kubeconfig.
    pub(crate) fn with(&self, kubeconfig: &Path) -> Kubectl {
        Kubectl {
            program: self.program.clone(),
            home: self.home.clone(),
            kubeconfig: kubeconfig.to_owned(),
            server: None,
        }
    }

    /// The same program for a MetaServer, which needs no kubeconfig.
    pub(crate) fn at(&self, metaserver: SocketAddr) -> Kubectl {
        Kubectl {
            server: Some(format!("http://{metaserver}")),
            ..self.with(&self.home.join("none"))
        }
    }

    /// A command, not started. Its words are divided at spaces.
    pub(crate) fn command(&self, words: &str) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(server) = &self.server {
            command.args(["--server", server]);
        }
        command
            .args(words.split_whitespace())
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.home)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    pub(crate) async fn run(&self, words: &str) -> Ran {
        let output = self.command(words).output().await.unwrap();
        ran(&output)
    }

    /// What it says; it has to succeed.
    pub(crate) async fn ok(&self, words: &str) -> String {
        let ran = self.run(words).await;
        assert!(ran.ok, "kubectl {words}: {}{}", ran.out, ran.err);
        ran.out
    }

    /// What it complains of; it has to fail.
    pub(crate) async fn refused(&self, words: &str) -> String {
        let ran = self.run(words).await;
        assert!(!ran.ok, "kubectl {words}: {}{}", ran.out, ran.err);
        ran.err
    }

    /// As [`Kubectl::ok`], with `text` as its standard input.
    pub(crate) async fn feed(&self, words: &str, text: &str) -> String {
        let ran = self.run_with(words, text).await;
        assert!(ran.ok, "kubectl {words}: {}{}", ran.out, ran.err);
        ran.out
    }

    /// All it says of `text` as its standard input; it has to fail.
    pub(crate) async fn refused_feed(&self, words: &str, text: &str) -> String {
        let ran = self.run_with(words, text).await;
        assert!(!ran.ok, "kubectl {words}: {}{}", ran.out, ran.err);
        ran.out + &ran.err
    }

    async fn run_with(&self, words: &str, text: &str) -> Ran {
        let mut command = self.command(words);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(text.as_bytes()).await.unwrap();
        drop(stdin);
        ran(&child.wait_with_output().await.unwrap())
    }

    /// Runs a command again and again until what it says is `good`; what it says then.
    pub(crate) async fn until(&self, what: &str, words: &str, good: impl Fn(&Ran) -> bool) -> String {
        let began = Instant::now();
        loop {
            let ran = self.run(words).await;
            if good(&ran) {
                return ran.out;
            }
            assert!(began.elapsed() < SOON, "waited for {what}: {ran:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Looks at an object (`get WORDS -o json`) until it is `good`; one that is not there is null.
    pub(crate) async fn sees(&self, what: &str, words: &str, good: impl Fn(&Value) -> bool) -> Value {
        let words = format!("get {words} -o json");
        let parse = |ran: &Ran| -> Value { serde_json::from_str(&ran.out).unwrap_or(Value::Null) };
        let seen = self.until(what, &words, |ran| good(&parse(ran))).await;
        serde_json::from_str(&seen).unwrap_or(Value::Null)
    }
}

fn ran(output: &std::process::Output) -> Ran {
    Ran {
        ok: output.status.success(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// One side of a twin (`reported`, `observedDesired`) in a DeviceStatus.
pub(crate) fn twin<'a>(status: &'a Value, property: &str, side: &str) -> Option<&'a str> {
    let twins = status["status"]["twins"].as_array()?;
    let twin = twins.iter().find(|twin| twin["propertyName"] == property)?;
    twin[side]["value"].as_str()
}

/// A condition in the status of an object; null when there is none.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let all = object["status"]["conditions"].as_array();
    let mut all = all.into_iter().flatten();
    all.find(|condition| condition["type"] == kind)
        .unwrap_or(&Value::Null)
}
