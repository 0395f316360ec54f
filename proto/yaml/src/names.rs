//! The name somebody meant.

/// Most candidates compared: a comparison is dear, and a file from outside may hold many names.
const MAX_CANDIDATES: usize = 256;

/// The candidate closest to `name`, if one is close enough to be meant.
pub fn closest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A misspelt name is short; a long one is not a name, and the distance costs its square.
    if name.len() > 64 {
        return None;
    }
    let wanted = name.to_lowercase();
    let allowed = (wanted.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&wanted, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// A hint for an unknown name: the closest candidate, or the list of all when it is short.
pub fn hint<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    if let Some(candidate) = closest(name, candidates.clone()) {
        return Some(format!("did you mean `{candidate}`?"));
    }
    let mut all: Vec<&str> = candidates.into_iter().take(MAX_CANDIDATES).collect();
    all.sort_unstable();
    if all.is_empty() || all.len() > 16 {
        return None;
    }
    Some(format!("known here: {}", all.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_nonsense_finds_none() {
        let known = ["register", "offset", "limit", "isRegisterSwap"];
        for (name, meant) in [
            ("registre", Some("register")),
            ("ofset", Some("offset")),
            ("Limit", Some("limit")),
            ("isregisterswap", Some("isRegisterSwap")),
            ("timeout", None),
            ("", None),
        ] {
            assert_eq!(closest(name, known), meant, "{name}");
        }
    }

    #[test]
    fn a_hint_lists_what_is_known_when_nothing_is_close() {
        assert_eq!(hint("xyzzyx", ["a", "b"]).unwrap(), "known here: a, b");
        assert_eq!(hint("xyzzyx", []), None);
    }
}
