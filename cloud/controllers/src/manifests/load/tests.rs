use super::*;

fn file(name: &str, text: &str) -> SourceFile {
    SourceFile {
        name: name.into(),
        content: Ok(text.into()),
    }
}

fn model(name: &str) -> String {
    format!(
        "apiVersion: devices.kubeedge.io/v1beta1\nkind: DeviceModel\nmetadata: {{name: {name}}}\nspec:\n  \
         properties: [{{name: t, type: INT}}]\n"
    )
}

fn device(name: &str, extra: &str) -> String {
    format!(
        "apiVersion: devices.kubeedge.io/v1beta1\nkind: Device\nmetadata: {{name: {name}}}\nspec:\n  \
         deviceModelRef: {{name: m}}\n  nodeName: n\n  protocol: {{protocolName: modbus, configData: {{ip: a}}}}\n{extra}"
    )
}

fn names(loaded: &Loaded) -> Vec<String> {
    let Objects { devices, models, .. } = &loaded.objects;
    devices
        .keys()
        .chain(models.keys())
        .map(ToString::to_string)
        .collect()
}

fn told(loaded: &Loaded) -> Vec<String> {
    loaded.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn one_bad_object_takes_no_other_down() {
    let text = [
        model("m"),
        device("a", ""),
        device("b", "  nodName: x\n"),
        "x: [\n".into(),
        device("c", ""),
    ]
    .join("---\n");
    let loaded = load(&Objects::default(), &[file("all.yaml", &text)]);
    assert_eq!(
        names(&loaded),
        ["Device default/a", "Device default/c", "DeviceModel default/m"]
    );
    let told = told(&loaded);
    assert_eq!(
        told[0],
        "all.yaml:22 (document 3): Device default/b: spec.nodName: unknown field (did you mean `nodeName`?)"
    );
    assert!(
        told[1].starts_with("all.yaml:2") && told[1].contains("(document 4): not valid YAML"),
        "{}",
        told[1]
    );
    let refused: Vec<String> = loaded.objects.refused.iter().map(ToString::to_string).collect();
    assert_eq!(refused, ["Device default/b"]);
}

#[test]
fn what_was_accepted_stays_until_it_is_replaced_or_taken_away() {
    let good = [model("m"), device("a", "")].join("---\n");
    let before = load(&Objects::default(), &[file("f.yaml", &good)]);
    assert!(!before.objects.incomplete);

    // The object is there with a mistake.
    let bad = [model("m"), device("a", "  bad: 1\n")].join("---\n");
    let after = load(&before.objects, &[file("f.yaml", &bad)]);
    assert_eq!(after.objects.devices, before.objects.devices);
    assert!(
        told(&after)
            .iter()
            .any(|t| t.ends_with("the version accepted before stays in force")),
        "{after:?}"
    );
    assert!(after.objects.refused.is_empty());

    // Its document cannot be read, or the whole file.
    for broken in [
        file("f.yaml", "kind: ["),
        SourceFile {
            name: "f.yaml".into(),
            content: Err("no".into()),
        },
    ] {
        let after = load(&before.objects, &[broken]);
        assert_eq!(names(&after), names(&before));
        assert!(!after.objects.incomplete, "what the file held is known");
        // And again, so that the safety net holds twice.
        let again = load(&after.objects, &[file("f.yaml", "kind: [")]);
        assert_eq!(names(&again), names(&before));
        let repaired = load(&again.objects, &[file("f.yaml", &good)]);
        assert_eq!(repaired.problems, []);
    }

    // It is taken away.
    assert_eq!(
        names(&load(&before.objects, &[file("f.yaml", &model("m"))])),
        ["DeviceModel default/m"]
    );
    assert_eq!(names(&load(&before.objects, &[])), Vec::<String>::new());
}

#[test]
fn a_file_that_was_never_read_makes_the_rest_incomplete() {
    let loaded = load(
        &Objects::default(),
        &[file("a.yaml", &model("m")), file("b.yaml", "kind: [")],
    );
    assert!(loaded.objects.incomplete);
    assert!(
        told(&loaded)
            .iter()
            .any(|t| t.contains("no device is taken from its node")),
        "{loaded:?}"
    );
    let repaired = load(
        &loaded.objects,
        &[file("a.yaml", &model("m")), file("b.yaml", "")],
    );
    assert!(!repaired.objects.incomplete);
}

#[test]
fn an_object_defined_twice_is_taken_from_the_first_file() {
    let loaded = load(
        &Objects::default(),
        &[file("b.yaml", &device("a", "")), file("a.yaml", &device("a", ""))],
    );
    assert_eq!(
        told(&loaded),
        ["b.yaml:1: Device default/a: already defined in a.yaml:1, which holds (take one of them away)"]
    );
    assert_eq!(
        loaded
            .objects
            .devices
            .values()
            .next()
            .unwrap()
            .source
            .file
            .as_ref(),
        "a.yaml"
    );
}

#[test]
fn what_is_for_somebody_else_is_told_once() {
    let text = "apiVersion: v1\nkind: Pod\n---\napiVersion: v1\nkind: Pod\n---\napiVersion: example.com/v1\nkind: Device\n";
    let loaded = load(&Objects::default(), &[file("x.yaml", text)]);
    assert_eq!(
        told(&loaded),
        ["x.yaml: not handled by this version: example.com/v1 Device, v1 Pod"]
    );
    assert_eq!(loaded.problems[0].severity, Severity::Info);
    assert!(!loaded.objects.incomplete);
}

#[test]
fn lists_are_opened() {
    let item = |name: &str| format!("- {}", model(name).trim_end().replace('\n', "\n  "));
    let text = format!(
        "apiVersion: v1\nkind: List\nitems:\n{}\n{}\n",
        item("a"),
        item("b")
    );
    let loaded = load(&Objects::default(), &[file("x.yaml", &text)]);
    assert_eq!(
        names(&loaded),
        ["DeviceModel default/a", "DeviceModel default/b"],
        "{:?}",
        loaded.problems
    );
}

#[test]
fn mistakes_name_the_field_and_the_way_out() {
    let header = "apiVersion: devices.kubeedge.io/v1beta1\n";
    for (text, why) in [
        ("hello", "expected a map, found `hello`"),
        ("a: 1", "it needs apiVersion and kind"),
        (
            "apiVersion: devices.kubeedge.io/v1alpha1\nkind: Device\nmetadata: {name: a}",
            "write devices.kubeedge.io/v1beta1",
        ),
        (&format!("{header}kind: Device\n"), "metadata.name: missing"),
        (
            &format!("{header}kind: Device\nmetadata: {{name: A_1}}"),
            "metadata.name: `A_1` is not a valid name",
        ),
        (
            &format!("{header}kind: Device\nmetadata: {{name: a, lables: {{}}}}"),
            "did you mean `labels`?",
        ),
        (
            &format!("{header}kind: Device\nmetadata: {{name: a}}"),
            "spec: missing",
        ),
        (
            &format!("{header}kind: Device\nmetadata: {{name: a}}\nspec: [a]"),
            "spec: expected a map, found a list",
        ),
        (
            &format!("{header}kind: Device\nmetadata: {{name: a}}\nspec: {{}}"),
            "spec.deviceModelRef: missing",
        ),
        (
            &device("a", "  properties: [{name: t, collectCycle: 500000000}]\n"),
            "write 500",
        ),
        (
            &device("a", "  properties: [{name: t, collectCycle: 5}]\n"),
            "from 10 ms to 86400000 ms",
        ),
        (
            &device("a", "  properties: [{name: 't t'}]\n"),
            "cannot be a property's name",
        ),
        (
            &device("a", "  properties: [{name: t}, {name: t}]\n"),
            "the property `t` is there twice",
        ),
        (
            &device("a", "  properties: [{visitors: {}}]\n"),
            "spec.properties[0].name: missing",
        ),
        (
            &device(
                "a",
                "  properties: [{name: t, visitors: {protocolName: modbas, configData: {}}}]\n",
            ),
            "spec.properties[0].visitors.protocolName: unknown protocol `modbas` (did you mean `modbus`?)",
        ),
        (
            &device(
                "a",
                "  propertyVisitors: [{propertyName: t, opcua: {nodeID: x}}]\n",
            ),
            "spec.propertyVisitors[0].opcua: the protocol `opcua` is not handled by this version (modbus is)",
        ),
        (
            &device("a", "  propertyVisitors: [{propertyName: t}]\n"),
            "the visitor has no protocol",
        ),
        (
            &device(
                "a",
                "  propertyVisitors: [{propertyName: temp, modbus: {}}]\nstatus: {twins: [{propertyName: tmp, desired: {value: '1'}}]}\n",
            ),
            "status.twins[0].desired.value: the device has no property `tmp` (did you mean `temp`?)",
        ),
        (&model("m").replace("INT", "INTEGER"), "unknown type `INTEGER`"),
        (
            &model("m").replace("type: INT", "type: {int: {}, double: {}}"),
            "expected exactly one type",
        ),
        (
            &model("m").replace("type: INT", "type: {int: {min: 1}}"),
            "spec.properties[0].type.int.min: unknown field",
        ),
        (
            &model("m").replace("type: INT", "type: INT, minimum: '5', maximum: 1"),
            "5 is above the maximum, 1",
        ),
        (
            &model("m").replace("type: INT", "type: INT, minimum: low"),
            "`low` is not a number",
        ),
        (
            &model("m").replace("type: INT", "type: INT, accessMode: readwrite"),
            "did you mean `ReadWrite`?",
        ),
        (
            &model("m").replace("[{name: t, type: INT}]", "{}"),
            "spec.properties: expected a list, found a map",
        ),
    ] {
        let loaded = load(&Objects::default(), &[file("x.yaml", text)]);
        assert!(
            told(&loaded).iter().any(|t| t.contains(why)),
            "{text}\n{:#?}",
            told(&loaded)
        );
        assert!(
            loaded.objects.devices.is_empty() && loaded.objects.models.is_empty(),
            "{text}"
        );
    }
}

#[test]
fn a_file_that_is_no_manifest_does_not_flood() {
    let text = "- a\n---\n".repeat(1000);
    let loaded = load(&Objects::default(), &[file("x.yaml", &text)]);
    assert_eq!(loaded.problems.len(), MAX_PROBLEMS_PER_FILE + 2);
    assert!(told(&loaded).contains(&"x.yaml: 950 more problems in this file".to_owned()));
}
