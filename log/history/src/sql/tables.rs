//! The tables. A table is its list of columns; this is also the documentation `ledge sql --schema` prints.

mod records;
mod state;

pub(crate) use records::{Labels, RECORD_TABLES, RecordRow, RecordTable, key_column, needs_payload};
pub(crate) use state::{STATE_TABLES, StateRow, StateTable};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_column_is_explained() {
        let mut tables: Vec<&str> = RECORD_TABLES.iter().map(|table| table.name).collect();
        tables.extend(STATE_TABLES.iter().map(|table| table.name));
        let count = tables.len();
        tables.sort_unstable();
        tables.dedup();
        assert_eq!(tables.len(), count);
        let columns = |names: Vec<(&'static str, &'static str)>| {
            let mut seen = std::collections::BTreeSet::new();
            for (name, about) in names {
                assert!(seen.insert(name), "{name} twice");
                assert!(!about.is_empty(), "{name}");
            }
        };
        for table in RECORD_TABLES {
            columns(table.columns.iter().map(|c| (c.name, c.about)).collect());
        }
        for table in STATE_TABLES {
            columns(table.columns.iter().map(|c| (c.name, c.about)).collect());
        }
    }
}
