//! Folds: state as a pure function of the log.
