//! A state as plain facts, one line each: what `diff` compares.

use std::collections::BTreeMap;

use ledge_history::payload;
use ledge_proto::fold::State;
use ledge_proto::fold::view::{self, Device, Latest};
use ledge_proto::v1;

use crate::error::Failure;

/// What a fact is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Subject {
    pub(crate) node: String,
    /// namespace/name, or empty for the node itself.
    pub(crate) device: String,
    /// Empty for the device itself.
    pub(crate) property: String,
    pub(crate) field: &'static str,
}

/// Every fact of `state`. Samples change all the time, so they are left out unless asked for.
pub(crate) fn facts(state: &State, samples: bool) -> Result<BTreeMap<Subject, String>, Failure> {
    let mut facts = Facts {
        facts: BTreeMap::new(),
        samples,
    };
    for scope in state.scopes() {
        let node = scope.to_string();
        if let Some(said) = view::node(state, &scope).map_err(|err| damaged(&err))? {
            facts.node(&node, &said.content);
        }
        for (name, device) in view::devices(state, &scope).map_err(|err| damaged(&err))? {
            facts.device(&node, &name, &device);
        }
    }
    Ok(facts.facts)
}

/// A folded entry that cannot be read.
pub(crate) fn damaged(err: &dyn std::error::Error) -> Failure {
    Failure::unreadable(err.to_string()).hint("`ledge log verify` says what is damaged")
}

struct Facts {
    facts: BTreeMap<Subject, String>,
    samples: bool,
}

impl Facts {
    fn add(&mut self, subject: (&str, &str, &str), field: &'static str, value: String) {
        let (node, device, property) = subject;
        let subject = Subject {
            node: node.to_owned(),
            device: device.to_owned(),
            property: property.to_owned(),
            field,
        };
        self.facts.insert(subject, value);
    }

    fn node(&mut self, node: &str, said: &v1::NodeState) {
        let labels: BTreeMap<_, _> = said.labels.iter().collect();
        self.add((node, "", ""), "version", said.version.clone());
        self.add((node, "", ""), "boot_id", said.boot_id.clone());
        if !labels.is_empty() {
            self.add((node, "", ""), "labels", format!("{labels:?}"));
        }
    }

    fn device(&mut self, node: &str, name: &str, device: &Device) {
        if let Some(spec) = &device.spec {
            let spec = payload::json(&ledge_proto::record::Payload::DeviceSpec(Box::new(
                spec.content.clone(),
            )));
            self.add((node, name, ""), "spec", spec.to_string());
        }
        if let Some(state) = &device.state {
            let state = &state.content;
            let text = if state.message.is_empty() {
                state.state.clone()
            } else {
                format!("{}: {}", state.state, state.message)
            };
            self.add((node, name, ""), "state", text);
        }
        for (property, twin) in &device.twins {
            let subject = (node, name, property.as_str());
            self.value(subject, "desired", twin.desired.as_ref(), |it| it.value.as_ref());
            self.value(subject, "reported", twin.reported.as_ref(), |it| {
                it.value.as_ref()
            });
            if self.samples {
                self.value(subject, "sample", twin.sample.as_ref(), |it| it.value.as_ref());
            }
            if let Some(write) = &twin.write_result {
                let written =
                    payload::line(&ledge_proto::record::Payload::WriteResult(write.content.clone()));
                self.add(subject, "write", written);
            }
        }
    }

    fn value<T>(
        &mut self,
        subject: (&str, &str, &str),
        field: &'static str,
        latest: Option<&Latest<T>>,
        of: impl Fn(&T) -> Option<&v1::Value>,
    ) {
        if let Some(value) = latest.and_then(|latest| payload::inner(of(&latest.content))) {
            self.add(subject, field, payload::text(value));
        }
    }
}
