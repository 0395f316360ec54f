//! Fields that a JSON text gives more than once: a decoded value does not show them.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::prune::MAX_UNKNOWN;

/// Paths of fields that are there more than once, such as `spec.foo`, at most [`MAX_UNKNOWN`]: a caller tells them as
/// `duplicate field "spec.foo"`. Empty for a text that is not JSON: decoding says what is wrong with it.
pub fn duplicates(json: &[u8]) -> Vec<String> {
    let mut walk = Walk::default();
    let mut decoder = serde_json::Deserializer::from_slice(json);
    match decoder.deserialize_any(&mut walk) {
        Ok(()) => walk.found,
        Err(_) => Vec::new(),
    }
}

#[derive(Default)]
struct Walk {
    path: String,
    found: Vec<String>,
}

impl<'de> DeserializeSeed<'de> for &mut Walk {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Walk {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            let end = self.path.len();
            if !self.path.is_empty() {
                self.path.push('.');
            }
            self.path.push_str(&name);
            if !seen.insert(name) {
                if self.found.len() < MAX_UNKNOWN {
                    self.found.push(self.path.clone());
                }
                map.next_value::<IgnoredAny>()?;
            } else {
                map.next_value_seed(&mut *self)?;
            }
            self.path.truncate(end);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let end = self.path.len();
        for at in 0_usize.. {
            self.path.push_str(&format!("[{at}]"));
            let more = seq.next_element_seed(&mut *self)?.is_some();
            self.path.truncate(end);
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::duplicates;

    #[test]
    fn what_is_there_twice() {
        let text =
            br#"{"a": {"b": 1, "b": {"c": 1, "c": 2}}, "l": [{"x": null}, {"x": 1.5, "x": true}], "a": ""}"#;
        assert_eq!(duplicates(text), ["a.b", "l[1].x", "a"]);
        assert_eq!(
            duplicates(br#"{"a": 1, "b": [1, "2", {"a": 3}]}"#),
            Vec::<String>::new()
        );
        assert_eq!(duplicates(b"{"), Vec::<String>::new());
    }
}
