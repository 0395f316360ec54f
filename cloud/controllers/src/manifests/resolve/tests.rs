use super::super::load::{SourceFile, load};
use super::*;

const MODEL: &str = "apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: m}
spec:
  protocol: modbus
  protocolConfigData: {port: 1502}
  properties:
  - {name: level, type: INT, accessMode: ReadWrite, minimum: '0', maximum: 100, unit: '%'}
  - {name: seen, type: DOUBLE, accessMode: ReadOnly}
  - {name: pump, type: boolean, accessMode: ReadWrite}
  - {name: label, type: STRING, accessMode: ReadWrite}
  - name: shared
    type: INT
    visitors: {protocolName: modbus, configData: {register: InputRegister, offset: 9, scale: 0.5}}
";

fn device(name: &str, node: &str, properties: &str) -> String {
    format!(
        "---\napiVersion: devices.kubeedge.io/v1beta1\nkind: Device\nmetadata: {{name: {name}}}\nspec:\n  \
         deviceModelRef: {{name: m}}\n  {node}\n  protocol: {{protocolName: Modbus, configData: {{ip: 10.0.0.1}}}}\n  \
         properties: [{properties}]\n"
    )
}

fn property(name: &str, config: &str, extra: &str) -> String {
    format!("{{name: {name}, visitors: {{protocolName: modbus, configData: {{{config}}}}}{extra}}}")
}

fn objects(text: &str) -> Objects {
    let file = SourceFile {
        name: "f.yaml".into(),
        content: Ok(text.into()),
    };
    let loaded = load(&Objects::default(), &[file]);
    assert_eq!(loaded.problems, []);
    loaded.objects
}

fn known(nodes: &[(&str, &str)]) -> KnownNodes {
    let labels = |zone: &str| BTreeMap::from([("zone".to_owned(), zone.to_owned())]);
    KnownNodes(
        nodes
            .iter()
            .map(|(name, zone)| ((*name).to_owned(), labels(zone)))
            .collect(),
    )
}

fn told(assignments: &Assignments) -> Vec<String> {
    assignments.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_device_is_resolved_with_its_model() {
    let properties = [
        property(
            "level",
            "register: holding, offset: 3",
            ", desired: {value: '40'}, collectCycle: 500, reportCycle: 0",
        ),
        property("shared", "offset: 7", ", reportToCloud: false"),
    ]
    .join(", ");
    let assignments = resolve(
        &objects(&format!("{MODEL}{}", device("d", "nodeName: n1", &properties))),
        &known(&[]),
    );
    assert_eq!(told(&assignments), Vec::<String>::new());
    let assigned = &assignments.nodes["n1"]["default/d"];
    let spec = &assigned.spec;
    assert_eq!(
        (
            spec.namespace.as_str(),
            spec.name.as_str(),
            spec.protocol.as_str()
        ),
        ("default", "d", "modbus")
    );
    let level = &spec.properties[0];
    assert_eq!((level.data_type(), level.writable), (v1::DataType::Int, true));
    assert_eq!(
        (level.minimum, level.maximum, level.unit.as_str()),
        (Some(0.0), Some(100.0), "%")
    );
    assert_eq!(
        (
            level.collect_cycle_ms,
            level.report_cycle_ms,
            level.report_to_cloud
        ),
        (500, 10_000, true)
    );
    let shared = &spec.properties[1];
    let visitor = shared.modbus.as_ref().unwrap();
    assert_eq!(
        (visitor.register(), visitor.offset, visitor.scale),
        (v1::modbus_visitor::Register::Input, 7, 0.5)
    );
    assert!(!shared.writable && !shared.report_to_cloud);
    assert_eq!(assigned.desired["level"].value, Some(v1::value::Value::Int(40)));
    assert_eq!(spec.resource_version.len(), 16);
}

#[test]
fn the_version_changes_with_the_content_and_not_with_the_comments() {
    let version = |text: &str| {
        resolve(&objects(text), &known(&[])).nodes["n"]["default/d"]
            .spec
            .resource_version
            .clone()
    };
    let text = format!(
        "{MODEL}{}",
        device(
            "d",
            "nodeName: n",
            &property("seen", "register: input, offset: 1", "")
        )
    );
    assert_eq!(
        version(&text),
        version(&text.replace("---\n", "--- # a comment\n\n"))
    );
    assert_ne!(version(&text), version(&text.replace("offset: 1", "offset: 2")));
}

#[test]
fn a_device_has_exactly_one_node() {
    let nodes = known(&[("n1", "a"), ("n2", "a"), ("n3", "b")]);
    let select = |selector: &str| {
        let text = format!(
            "{MODEL}{}",
            device("d", &format!("nodeSelector: {{{selector}}}"), "")
        );
        resolve(&objects(&text), &nodes)
    };
    let cases = [
        ("matchLabels: {zone: b}", Some("n3"), None),
        (
            "matchLabels: {zone: a}",
            Some("n1"),
            Some("2 nodes are selected: `n1` has the device"),
        ),
        ("matchLabels: {zone: c}", None, Some("no known node is selected")),
        (
            "matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [never-seen]}]",
            Some("never-seen"),
            None,
        ),
        (
            "matchLabels: {kubernetes.io/hostname: n2, zone: a}",
            Some("n2"),
            None,
        ),
        (
            "matchLabels: {kubernetes.io/hostname: never-seen, zone: a}",
            None,
            Some("no known node is selected"),
        ),
    ];
    for (selector, node, why) in cases {
        let assignments = select(selector);
        assert_eq!(
            assignments.nodes.keys().next().map(String::as_str),
            node,
            "{selector}"
        );
        let told = told(&assignments);
        assert_eq!(told.len(), usize::from(why.is_some()), "{selector}: {told:?}");
        assert!(
            why.is_none_or(|why| told[0].contains(why)),
            "{selector}: {told:?}"
        );
        assert!(assignments.may_remove("default/d"), "an answer, not a doubt");
    }
    let nowhere = resolve(
        &objects(&format!("{MODEL}{}", device("d", "nodeName: ''", ""))),
        &nodes,
    );
    assert!(nowhere.nodes.is_empty() && told(&nowhere)[0].contains("assigned to no node"));
}

#[test]
fn a_device_that_cannot_be_resolved_is_held() {
    let seen = property("seen", "register: holding, offset: 0", "");
    let device_text = device("d", "nodeName: n", &seen);
    for (text, why) in [
        (
            device_text.clone(),
            "its model, DeviceModel default/m, is missing",
        ),
        (
            MODEL.replace("name: m}", "name: n}") + &device_text,
            "is missing (did you mean `n`?)",
        ),
        (
            MODEL.replace("name: m}", "name: m, namespace: other}") + &device_text,
            "its model, DeviceModel default/m, is missing",
        ),
        (
            MODEL.replace("name: seen", "name: sen") + &device_text,
            "the model has no property `seen` (did you mean `sen`?)",
        ),
        (
            MODEL.to_owned() + &device_text.replace("register: holding", "limit: 1"),
            "register: missing (add register)",
        ),
        (
            MODEL.to_owned() + &device_text.replace("ip: 10.0.0.1", ""),
            "nothing says how to reach the device",
        ),
    ] {
        let assignments = resolve(&objects(&text), &known(&[]));
        assert!(
            told(&assignments).iter().any(|t| t.contains(why)),
            "{why}: {:?}",
            told(&assignments)
        );
        assert!(
            assignments.nodes.is_empty() && !assignments.may_remove("default/d"),
            "{why}"
        );
        assert!(assignments.may_remove("default/other"));
    }
}

#[test]
fn what_is_refused_or_unreadable_is_held() {
    let files = |text: &str| {
        [SourceFile {
            name: "f".into(),
            content: Ok(text.to_owned()),
        }]
    };
    let refused = load(
        &Objects::default(),
        &files(&(MODEL.to_owned() + &device("d", "bad: 1", ""))),
    );
    assert!(!resolve(&refused.objects, &known(&[])).may_remove("default/d"));
    let unreadable = load(&Objects::default(), &files("kind: ["));
    assert!(!resolve(&unreadable.objects, &known(&[])).may_remove("default/any"));
    let bad_model = MODEL.replace("type: INT", "type: IN");
    let model = load(
        &Objects::default(),
        &files(&(bad_model + &device("d", "nodeName: n", ""))),
    );
    let assignments = resolve(&model.objects, &known(&[]));
    assert!(told(&assignments)[0].contains("its model, DeviceModel default/m, has mistakes"));
}

#[test]
fn desired_values_are_typed_and_checked() {
    use v1::value::Value as V;
    let holding = "register: holding, offset: 0";
    for (name, config, value, want) in [
        ("level", holding, "25", Ok(V::Int(25))),
        ("level", holding, "25.0", Ok(V::Int(25))),
        ("level", holding, "2.5", Err("`2.5` is not a whole number")),
        (
            "level",
            holding,
            "101",
            Err("101 is out of range: from 0 to 100 %"),
        ),
        ("level", holding, "-1", Err("-1 is out of range: from 0 to 100 %")),
        (
            "level",
            "register: holding, offset: 0, scale: 0.001",
            "90",
            Err("it does not fit one register"),
        ),
        ("level", "register: coil, offset: 0", "1", Ok(V::Int(1))),
        (
            "level",
            "register: coil, offset: 0",
            "2",
            Err("it does not fit a coil"),
        ),
        (
            "level",
            "register: InputRegister, offset: 0",
            "2",
            Err("registers of this kind cannot be written"),
        ),
        ("seen", holding, "1", Err("the property is read-only")),
        ("pump", "register: coil, offset: 0", "ON", Ok(V::Bool(true))),
        ("pump", "register: coil, offset: 0", "0", Ok(V::Bool(false))),
        (
            "pump",
            "register: coil, offset: 0",
            "maybe",
            Err("`maybe` is not true or false"),
        ),
        (
            "label",
            "register: holding, offset: 0, limit: 2",
            "abcd",
            Ok(V::String("abcd".into())),
        ),
        (
            "label",
            "register: holding, offset: 0, limit: 2",
            "abcde",
            Err("5 bytes do not fit 2 registers"),
        ),
    ] {
        let wish = format!(", desired: {{value: '{value}'}}");
        let text = format!(
            "{MODEL}{}",
            device("d", "nodeName: n", &property(name, config, &wish))
        );
        let assignments = resolve(&objects(&text), &known(&[]));
        let assigned = &assignments.nodes["n"]["default/d"];
        match want {
            Ok(want) => {
                assert_eq!(assigned.desired[name].value, Some(want), "{name} {value}");
                assert!(assigned.held_desired.is_empty());
            }
            Err(why) => {
                let told = told(&assignments);
                let expected = format!("spec.properties[0].desired.value: property `{name}`: ");
                assert!(told[0].contains(why) && told[0].contains(&expected), "{told:?}");
                assert!(
                    assigned.desired.is_empty() && assigned.held_desired.contains(name),
                    "the device itself works"
                );
            }
        }
    }
    let empty = device(
        "d",
        "nodeName: n",
        &property("level", holding, ", desired: {value: ''}"),
    );
    let assignments = resolve(&objects(&format!("{MODEL}{empty}")), &known(&[]));
    let assigned = &assignments.nodes["n"]["default/d"];
    assert!(
        assigned.desired.is_empty() && assigned.held_desired.is_empty(),
        "an empty value wishes nothing"
    );
}
