//! Label selectors as queries write them, with the messages of the original parser
//! (`k8s.io/apimachinery/pkg/labels/selector.go`), to which clients are used.

use std::collections::BTreeSet;

use super::{REQUIREMENTS_MAX, Requirement, Test};
use crate::meta;

const OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

/// Longest piece of the query that a message repeats.
const SHOWN_MAX_CHARS: usize = 64;

/// Reads a query; the error says what was expected.
pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, String> {
    let mut words = Words { rest: text };
    let mut requirements = Vec::new();
    loop {
        match words.peek() {
            "" => return Ok(requirements),
            "!" => {}
            word if is_name(word) => {}
            word => {
                let word = shown(word);
                return Err(format!(
                    "found '{word}', expected: !, identifier, or 'end of string'"
                ));
            }
        }
        if requirements.len() == REQUIREMENTS_MAX {
            return Err(format!("more than {REQUIREMENTS_MAX} requirements"));
        }
        let requirement = requirement(&mut words);
        requirements.push(requirement.map_err(|why| format!("unable to parse requirement: {why}"))?);
        match words.next() {
            "" => return Ok(requirements),
            "," => {
                let word = words.peek();
                if !is_name(word) && word != "!" {
                    return Err(format!("found '{}', expected: identifier after ','", shown(word)));
                }
            }
            word => {
                return Err(format!(
                    "found '{}', expected: ',' or 'end of string'",
                    shown(word)
                ));
            }
        }
    }
}

fn requirement(words: &mut Words<'_>) -> Result<Requirement, String> {
    let absent = words.peek() == "!";
    if absent {
        words.next();
    }
    let key = words.next();
    if !is_name(key) {
        return Err(format!("found '{}', expected: identifier", shown(key)));
    }
    if let Some(why) = meta::qualified(key) {
        return Err(format!("<nil>: Invalid value: \"{}\": {why}", shown(key)));
    }
    let test = if absent {
        Test::Absent
    } else if matches!(words.peek(), "" | ",") {
        Test::Exists
    } else {
        test(words)?
    };
    let values = match &test {
        Test::In(values) | Test::NotIn(values) => values,
        _ => return Ok((key.to_owned(), test)),
    };
    for (n, value) in values.iter().enumerate() {
        if let Some(why) = meta::label_value(value) {
            let value = shown(value);
            return Err(format!("values[{n}][{key}]: Invalid value: \"{value}\": {why}"));
        }
    }
    Ok((key.to_owned(), test))
}

fn test(words: &mut Words<'_>) -> Result<Test, String> {
    Ok(match words.next() {
        "in" => Test::In(values(words)?),
        "notin" => Test::NotIn(values(words)?),
        "=" | "==" => Test::In(BTreeSet::from([value(words)?])),
        "!=" => Test::NotIn(BTreeSet::from([value(words)?])),
        ">" => Test::GreaterThan(number(words)?),
        "<" => Test::LessThan(number(words)?),
        other => return Err(format!("found '{}', expected: {OPERATORS}", shown(other))),
    })
}

/// One value; nothing is the empty one.
fn value(words: &mut Words<'_>) -> Result<String, String> {
    if matches!(words.peek(), "" | ",") {
        return Ok(String::new());
    }
    match words.next() {
        word if is_name(word) => Ok(word.to_owned()),
        word => Err(format!("found '{}', expected: identifier", shown(word))),
    }
}

fn number(words: &mut Words<'_>) -> Result<i64, String> {
    let value = value(words)?;
    value.parse().map_err(|_| {
        format!(
            "values[0]: Invalid value: \"{}\": for 'Gt', 'Lt' operators, the value must be an integer",
            shown(&value)
        )
    })
}

/// `(a,b)`; between commas, and between brackets, nothing is the empty value.
fn values(words: &mut Words<'_>) -> Result<BTreeSet<String>, String> {
    match words.next() {
        "(" => {}
        word => return Err(format!("found '{}' expected: '('", shown(word))),
    }
    let mut values = BTreeSet::new();
    if words.peek() == ")" {
        words.next();
        values.insert(String::new());
        return Ok(values);
    }
    let first = words.peek();
    if !is_name(first) && first != "," {
        return Err(format!(
            "found '{}', expected: ',', ')' or identifier",
            shown(first)
        ));
    }
    loop {
        match words.next() {
            "," => {
                if values.is_empty() {
                    values.insert(String::new());
                }
                if matches!(words.peek(), "," | ")") {
                    values.insert(String::new());
                }
            }
            word if is_name(word) => {
                values.insert(word.to_owned());
                let after = words.peek();
                if !matches!(after, "," | ")") {
                    return Err(format!("found '{}', expected: ',' or ')'", shown(after)));
                }
            }
            ")" => return Ok(values),
            word => return Err(format!("found '{}', expected: ',', or identifier", shown(word))),
        }
    }
}

fn shown(word: &str) -> String {
    word.chars().take(SHOWN_MAX_CHARS).collect()
}

fn is_special(c: char) -> bool {
    "=!(),><".contains(c)
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_name(word: &str) -> bool {
    word.chars().next().is_some_and(|c| !is_special(c))
}

/// Names and signs, one after the other; empty at the end.
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn peek(&self) -> &'a str {
        let rest = self.rest.trim_start_matches(is_space);
        let signs = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];
        match signs.iter().find(|sign| rest.starts_with(**sign)) {
            Some(sign) => &rest[..sign.len()],
            None => {
                let end = rest.find(|c| is_special(c) || is_space(c));
                &rest[..end.unwrap_or(rest.len())]
            }
        }
    }

    fn next(&mut self) -> &'a str {
        let word = self.peek();
        self.rest = &self.rest.trim_start_matches(is_space)[word.len()..];
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a Kubernetes API server answers.
    #[test]
    fn messages() {
        for (text, message) in [
            (
                "a b",
                "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
            ),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            (
                "a in (b",
                "unable to parse requirement: found '', expected: ',' or ')'",
            ),
            (
                "a notin (b,!)",
                "unable to parse requirement: found '!', expected: ',', or identifier",
            ),
            ("a,", "found '', expected: identifier after ','"),
            ("x,,y", "found ',', expected: identifier after ','"),
            (",a", "found ',', expected: !, identifier, or 'end of string'"),
            ("(", "found '(', expected: !, identifier, or 'end of string'"),
            ("=", "found '=', expected: !, identifier, or 'end of string'"),
            ("!", "unable to parse requirement: found '', expected: identifier"),
            ("a=b=c", "found '=', expected: ',' or 'end of string'"),
            ("a=b)", "found ')', expected: ',' or 'end of string'"),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            (
                "a>x",
                "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
            (
                "a=-b",
                "unable to parse requirement: values[0][a]: Invalid value: \"-b\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            ),
            (
                "A*=b",
                "unable to parse requirement: <nil>: Invalid value: \"A*\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), message, "{text}");
        }
    }

    #[test]
    fn nothing_is_the_empty_value() {
        let empty = || BTreeSet::from([String::new()]);
        assert_eq!(parse("a in ()").unwrap(), [("a".to_owned(), Test::In(empty()))]);
        assert_eq!(parse("a==").unwrap(), [("a".to_owned(), Test::In(empty()))]);
        let mut two = empty();
        two.insert("b".to_owned());
        for text in ["a notin (,b)", "a notin (b,)", "a notin (b,,b)"] {
            assert_eq!(
                parse(text).unwrap(),
                [("a".to_owned(), Test::NotIn(two.clone()))],
                "{text}"
            );
        }
    }
}
