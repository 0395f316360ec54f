use proptest::prelude::*;

use super::*;

fn one(text: &str) -> Result<Node, SyntaxError> {
    documents(text, &Limits::DEFAULT)?
        .into_iter()
        .next()
        .expect("a document")
}

#[test]
fn scalars_keep_their_text_and_line() {
    let node = one("a: 0x10\nb:\n  - 'no'\n  - no\nc: ~\n").unwrap();
    assert_eq!(node.get("a").unwrap().text(), Some("0x10"));
    let list = node.get("b").unwrap().list().unwrap();
    assert_eq!((list[0].line, list[1].line), (3, 4));
    assert_eq!(
        list[0].value,
        Value::Scalar(Scalar {
            text: "no".into(),
            plain: false
        })
    );
    assert!(node.get("c").unwrap().is_null());
    assert_eq!(node.get("d"), None);
}

#[test]
fn a_broken_document_leaves_the_others_alone() {
    let text = "# first\n---\na: 1\n---\nb: [1\n---\n---\n# nothing\n---\nc: 3\n";
    let documents = documents(text, &Limits::DEFAULT).unwrap();
    assert_eq!(documents.len(), 3, "{documents:?}");
    assert_eq!(documents[0].as_ref().unwrap().get("a").unwrap().line, 3);
    let err = documents[1].as_ref().unwrap_err();
    assert!((5..=6).contains(&err.line), "{err}");
    assert_eq!(documents[2].as_ref().unwrap().get("c").unwrap().line, 10);
}

#[test]
fn json_is_yaml() {
    let node = one("{\n\t\"kind\": \"Device\",\n\t\"n\": [1, 2.5, true, null]\n}\n").unwrap();
    assert_eq!(node.get("kind").unwrap().text(), Some("Device"));
    assert_eq!(node.get("n").unwrap().list().unwrap().len(), 4);
}

#[test]
fn what_is_refused_says_why() {
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned()
        + &(b'b'..=b'z')
            .map(|c| {
                let (c, p) = (c as char, (c - 1) as char);
                format!("{c}: &{c} [*{p},*{p},*{p},*{p},*{p},*{p},*{p},*{p},*{p}]\n")
            })
            .collect::<String>();
    for (text, why) in [
        ("a: 1\na: 2\n", "twice"),
        ("[a]: 1\n", "a key must be"),
        ("a: &a [*a]\n", "not complete"),
        ("a: *b\n", "not valid YAML"),
        (&"[".repeat(100), "nested more than"),
        (&"[".repeat(100_000), "recursion limit"),
        (&"- ".repeat(100_000), "nested more than"),
        (&bomb, "aliases copy more than"),
        ("a: 1\n...\nb: 2\n", "second document"),
    ] {
        let err = one(text).unwrap_err();
        assert!(
            err.message.contains(why),
            "{err} for {}",
            &text[..text.len().min(40)]
        );
    }
    let long = "x".repeat(Limits::DEFAULT.max_bytes + 1);
    assert!(
        documents(&long, &Limits::DEFAULT)
            .unwrap_err()
            .message
            .contains("more than")
    );
}

#[test]
fn an_alias_is_a_copy() {
    let node = one("a: &x {k: v}\nb: *x\n").unwrap();
    assert_eq!(node.get("b").unwrap().get("k").unwrap().text(), Some("v"));
}

proptest! {
    #[test]
    fn never_panics_on_any_text(text in ".{0,400}") {
        let _ = documents(&text, &Limits::DEFAULT);
    }

    #[test]
    fn never_panics_on_text_that_looks_like_yaml(
        text in "([-:?,&*!|>'\"%@`#{}\\[\\]\\\\ \n\tab01.~]|---\n|key: |- |<<: |\\.\\.\\.\n){0,120}"
    ) {
        let _ = documents(&text, &Limits::DEFAULT);
    }
}
