//! Exit codes. Scripts depend on them: never renumber.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Yes, or done.
    Yes = 0,
    /// No: what was asked does not hold, the two sides differ, or the command failed.
    No = 1,
    /// The command line cannot be understood.
    Usage = 2,
    /// `log verify`: the log ends in a half-written block, as after a power cut.
    TornTail = 3,
    /// `log verify`: bytes do not match their checksum or hash chain.
    BadHash = 4,
    /// `log verify`: sequence numbers are missing without a gap record that says so.
    Gap = 5,
    /// The log cannot be opened or read, so there is no answer.
    Unreadable = 6,
    /// The daemon that was asked does not answer.
    Unreachable = 7,
}

impl Code {
    /// Every code.
    pub const ALL: [Code; 8] = [
        Code::Yes,
        Code::No,
        Code::Usage,
        Code::TornTail,
        Code::BadHash,
        Code::Gap,
        Code::Unreadable,
        Code::Unreachable,
    ];

    /// The number a shell sees in `$?`.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// What it means, for the table in the help.
    pub fn meaning(self) -> &'static str {
        match self {
            Code::Yes => "yes, or done. `diff`: nothing changed. `log verify`: the log is intact",
            Code::No => {
                "no, or the command failed. `diff`: something changed. `replay --expect-hash`: differs"
            }
            Code::Usage => "the command line cannot be understood",
            Code::TornTail => "`log verify`: half-written block at the end, as after a power cut",
            Code::BadHash => "`log verify`: damaged bytes: a checksum or the hash chain does not match",
            Code::Gap => "`log verify`: records are missing and no gap record says why",
            Code::Unreachable => "`node`: no cloudcore answers on that address",
            Code::Unreadable => "the log cannot be opened or read, so there is no answer",
        }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        ExitCode::from(code.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_their_place_in_the_list() {
        for (place, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(code.number()), place);
        }
    }
}
