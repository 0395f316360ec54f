//! The planted bugs, and which invariant is expected to catch each.

/// One planted bug.
#[derive(Debug, Clone, Copy)]
pub struct Mutant {
    /// Its name, as in `ledge_proto::mutants::on`.
    pub name: &'static str,
    /// The rule it breaks.
    pub breaks: &'static str,
    /// The invariants any of which may see it.
    pub caught_by: &'static str,
}

/// Every planted bug.
pub const MUTANTS: &[Mutant] = &[];
