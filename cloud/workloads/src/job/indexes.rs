//! The indexes of an indexed Job, as its status writes them: `0-3,7`.

use std::collections::BTreeSet;

/// Reads `0-3,7`; indexes from `completions` on, and what cannot be understood, are left out.
pub fn parse(text: &str, completions: i32) -> BTreeSet<i32> {
    let ranges = text.split(',').filter_map(|range| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (from, to): (i32, i32) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        Some(from.max(0)..=to.min(completions.saturating_sub(1)))
    });
    ranges.flatten().collect()
}

/// Writes `0-3,7`.
pub fn format(indexes: &BTreeSet<i32>) -> String {
    let mut ranges: Vec<(i32, i32)> = Vec::new();
    for index in indexes {
        match ranges.last_mut() {
            Some((_, to)) if *to + 1 == *index => *to = *index,
            _ => ranges.push((*index, *index)),
        }
    }
    let ranges = ranges.into_iter().map(|(from, to)| match to - from {
        0 => from.to_string(),
        // As upstream: two that follow each other are no range.
        1 => format!("{from},{to}"),
        _ => format!("{from}-{to}"),
    });
    ranges.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_upstream_writes_them() {
        assert_eq!(format(&[0, 1, 2, 3, 7, 9, 10].into()), "0-3,7,9,10");
        assert_eq!(parse("0-3,7,x,5-", 8), [0, 1, 2, 3, 7].into());
        assert_eq!(parse("0-2147483647", 3), [0, 1, 2].into());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(indexes in prop::collection::btree_set(0..500i32, 0..60)) {
            prop_assert_eq!(parse(&format(&indexes), 500), indexes);
        }
    }
}
