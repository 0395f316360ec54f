//! What a path finds, how long ago a time is, and whole tables.

use super::*;
use crate::resource::tests::widgets;

#[test]
fn durations_as_kubectl_prints_them() {
    const DAY: i64 = 86_400;
    for (seconds, text) in [
        (-2, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (5, "5s"),
        (119, "119s"),
        (120, "2m"),
        (192, "3m12s"),
        (599, "9m59s"),
        (600, "10m"),
        (10_799, "179m"),
        (10_800, "3h"),
        (14_700, "4h5m"),
        (8 * 3600 + 60, "8h"),
        (47 * 3600, "47h"),
        (2 * DAY, "2d"),
        (2 * DAY + 3 * 3600, "2d3h"),
        (8 * DAY, "8d"),
        (40 * DAY, "40d"),
        (729 * DAY, "729d"),
        (730 * DAY, "2y"),
        (740 * DAY, "2y10d"),
        (365 * 8 * DAY, "8y"),
        (3000 * DAY, "8y"),
    ] {
        assert_eq!(human_duration(seconds), text, "{seconds}");
    }
    assert_eq!(since(&Value::Null, 0), "<unknown>");
    assert_eq!(since(&"1970-01-01T00:00:00Z".into(), 5_900_000), "5s");
}

#[test]
fn paths() {
    let object = json!({
        "spec": {"replicas": 3, "a.b": "dotted", "list": [1, 2, 3], "none": null, "map": {"x": {"y": 1}}},
        "status": {"conditions": [
            {"type": "Synced", "status": "False", "n": 1},
            {"type": "Ready", "status": "True", "n": 2, "inner": [{"k": "v"}]},
        ]},
    });
    let find = |path: &str| JsonPath::parse(path).unwrap().first(&object).cloned();
    for (path, value) in [
        (".spec.replicas", json!(3)),
        ("$.spec.replicas", json!(3)),
        ("['spec']['replicas']", json!(3)),
        (".spec['none', 'replicas']", json!(null)),
        (r".spec.a\.b", json!("dotted")),
        (".spec['a.b']", json!("dotted")),
        (".spec.list[0]", json!(1)),
        (".spec.list[-1]", json!(3)),
        (".spec.list[1:]", json!(2)),
        (".spec.list[*]", json!(1)),
        (".spec.list", json!([1, 2, 3])),
        (".spec.map.*.y", json!(1)),
        ("..y", json!(1)),
        (r#".status.conditions[?(@.type=="Ready")].status"#, json!("True")),
        (".status.conditions[?(@.type == 'Ready')].status", json!("True")),
        (".status.conditions[?(@.type!='Synced')].n", json!(2)),
        (".status.conditions[?(@.n>1)].type", json!("Ready")),
        (".status.conditions[?(@.n<=1)].type", json!("Synced")),
        (".status.conditions[?(@.inner)].type", json!("Ready")),
        (
            ".status.conditions[?(@.inner[?(@.k=='v')].k=='v')].type",
            json!("Ready"),
        ),
        (".status.conditions[*].type", json!("Synced")),
    ] {
        assert_eq!(find(path), Some(value), "{path}");
    }
    for path in [
        ".spec.absent",
        ".spec.list[3]",
        ".spec.list.a",
        ".spec[0]",
        ".status.conditions[?(@.type=='X')].n",
    ] {
        assert_eq!(find(path), None, "{path}");
    }
    for path in [
        "spec",
        ".spec[",
        ".spec['a",
        ".a[x]",
        ".a..",
        ".a[?(@.b==)]",
        ".a[?(b)]",
        ".spec...a",
    ] {
        let found = JsonPath::parse(path).map(|path| path.first(&object).cloned());
        assert!(matches!(found, None | Some(None)), "{path}: {found:?}");
    }
    let deep = format!("{}{}", ".a[?(@".repeat(1000), ")]".repeat(1000));
    assert_eq!(JsonPath::parse(&deep), None);
}

#[test]
fn cells_of_a_type() {
    for (kind, found, cell) in [
        ("string", json!("a"), json!("a")),
        ("string", json!(3), json!("3")),
        ("string", json!(2.0), json!("2")),
        ("string", json!(true), json!("true")),
        ("string", json!([1, {"a": "b"}]), json!(r#"[1,{"a":"b"}]"#)),
        ("string", json!(null), json!("<no value>")),
        ("integer", json!(3), json!(3)),
        ("integer", json!(3.7), json!(3)),
        ("integer", json!("3"), json!(null)),
        ("number", json!(1.5), json!(1.5)),
        ("boolean", json!(true), json!(true)),
        ("boolean", json!("true"), json!(null)),
        ("date", json!("1970-01-01T00:00:00Z"), json!("10s")),
        ("date", json!("yesterday"), json!("<invalid>")),
        ("date", json!(1), json!(null)),
    ] {
        assert_eq!(shown(kind, &found, 10_000_000), cell, "{kind} {found}");
    }
}

#[test]
fn tables() {
    let mut resource = widgets();
    let objects = [json!({
        "apiVersion": "example.com/v1",
        "kind": "Widget",
        "metadata": {"name": "a", "creationTimestamp": "1970-01-01T00:00:00Z"},
        "spec": {"size": 3},
    })];
    let mut table = Table {
        resource: &resource,
        objects: &objects,
        metadata: json!({"resourceVersion": "7"}),
        include: Include::parse(""),
        columns: true,
        now_us: 61_000_000,
    };
    let shown = render(&table);
    assert_eq!(shown["kind"], "Table");
    assert_eq!(shown["metadata"]["resourceVersion"], "7");
    assert_eq!(shown["columnDefinitions"][0]["format"], "name");
    assert_eq!(shown["columnDefinitions"][1]["name"], "Age");
    assert_eq!(shown["rows"][0]["cells"], json!(["a", "61s"]));
    assert_eq!(shown["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(shown["rows"][0]["object"].get("spec"), None);

    table.columns = false;
    table.include = Include::parse("Object");
    let shown = render(&table);
    assert_eq!(shown["columnDefinitions"], json!([]));
    assert_eq!(shown["rows"][0]["object"], objects[0]);
    table.include = Include::parse("None");
    assert_eq!(render(&table)["rows"][0]["object"], Value::Null);

    resource.columns = custom_columns(&json!({"additionalPrinterColumns": [
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size", "priority": 1},
        {"name": "Bad", "type": "string", "jsonPath": "no path"},
    ]}));
    table = Table {
        resource: &resource,
        objects: &objects,
        metadata: Value::Null,
        include: Include::None,
        columns: true,
        now_us: 0,
    };
    let shown = render(&table);
    assert_eq!(shown["rows"][0]["cells"], json!(["a", 3, null]));
    assert_eq!(shown["columnDefinitions"][1]["priority"], 1);
    assert_eq!(
        shown["columnDefinitions"][1]["description"],
        "Custom resource definition column (in JSONPath format): .spec.size"
    );
    assert_eq!(custom_columns(&json!({})).len(), 2);
}
