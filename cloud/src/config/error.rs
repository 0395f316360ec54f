//! Why the settings cannot be used.

use std::fmt;
use std::path::PathBuf;

use ledge_yaml::Problem;

/// Why [`Config::load`](super::Config::load) failed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Something in the file is wrong.
    #[error("{} cannot be used:{}", path.display(), Lines(problems))]
    File {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong, in the order of the file.
        problems: Vec<Problem>,
    },
    /// A flag, or its variable in the environment, is wrong.
    #[error("{flag}: {message}")]
    Flag {
        /// For example `--http-listen`.
        flag: &'static str,
        /// What is wrong with it.
        message: String,
    },
}

struct Lines<'a>(&'a [Problem]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}
