//! Short names of templates.

use serde::Serialize;

/// Letters and digits that make no words, as upstream: no vowels, no 0, 1 and 3.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A name of seven characters for `template`, made other by `collisions` with other templates of the same name.
pub(crate) fn short<T: Serialize>(template: &T, collisions: i32) -> String {
    // Kubernetes' own types are always JSON; the keys of their maps are sorted.
    let bytes = serde_json::to_vec(template).unwrap_or_default();
    let salt = if collisions > 0 {
        collisions.to_string()
    } else {
        String::new()
    };
    let all = bytes.iter().chain(salt.as_bytes());
    let mut hash = all.fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    let mut name = String::new();
    for _ in 0..7 {
        let letter = ALPHABET[(hash % 27) as usize];
        name.push(char::from(letter));
        hash /= 27;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_that_of_its_template() {
        let one = short(&"a", 0);
        assert_eq!(one, short(&"a", 0));
        assert_eq!(one.len(), 7);
        assert_ne!(one, short(&"b", 0));
        assert_ne!(one, short(&"a", 1));
    }
}
