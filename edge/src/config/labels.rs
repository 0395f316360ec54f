//! Labels of the node, by Kubernetes' rules.

use std::collections::BTreeMap;

use ledge_proto::limits;
use ledge_yaml::units::shown;

/// Reads `key=value,key=value`.
///
/// # Errors
/// A sentence about the first label that is wrong.
pub(super) fn parse(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut labels = BTreeMap::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| format!("`{}` is not KEY=VALUE", shown(pair)))?;
        if labels.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(format!("the label `{}` is there twice", shown(key)));
        }
    }
    check(&labels)?;
    Ok(labels)
}

/// Checks what [`parse`] or a file gave.
///
/// # Errors
/// A sentence about the first label that is wrong.
pub(super) fn check(labels: &BTreeMap<String, String>) -> Result<(), String> {
    if labels.len() > limits::NODE_MAX_LABELS {
        return Err(format!(
            "{} labels, more than {}",
            labels.len(),
            limits::NODE_MAX_LABELS
        ));
    }
    for (key, value) in labels {
        let (prefix, name) = key
            .split_once('/')
            .map_or((None, key.as_str()), |(p, n)| (Some(p), n));
        if !prefix.is_none_or(is_subdomain) || name.is_empty() || !is_part(name) {
            return Err(format!(
                "`{}` is not a label key: an optional DNS name and `/`, then up to 63 letters, digits, `-`, `_`, `.`",
                shown(key)
            ));
        }
        if !is_part(value) {
            return Err(format!(
                "`{}` is not a label value: up to 63 letters, digits, `-`, `_`, `.`, with a letter or digit at both ends",
                shown(value)
            ));
        }
    }
    Ok(())
}

fn is_part(text: &str) -> bool {
    let alphanumeric_ends = |bytes: &[u8]| {
        bytes.first().is_none_or(u8::is_ascii_alphanumeric)
            && bytes.last().is_none_or(u8::is_ascii_alphanumeric)
    };
    text.len() <= 63
        && alphanumeric_ends(text.as_bytes())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn is_subdomain(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.split('.').all(|part| {
            !part.is_empty()
                && is_part(part)
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_kubernetes_rules() {
        let labels = parse("zone=a, node-role.kubernetes.io/edge=,x_1=A.b-c").unwrap();
        assert_eq!(labels["node-role.kubernetes.io/edge"], "");
        assert_eq!(labels.len(), 3);
        assert_eq!(parse("").unwrap().len(), 0);
        for (text, why) in [
            ("zone", "KEY=VALUE"),
            ("=a", "not a label key"),
            ("-a=b", "not a label key"),
            ("A_B/c=d", "not a label key"),
            ("a/b/c=d", "not a label key"),
            ("a=b c", "not a label value"),
            ("a=-", "not a label value"),
            ("a=1,a=2", "twice"),
            (&format!("a={}", "x".repeat(64)), "not a label value"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(why), "{text}: {message}");
        }
    }
}
