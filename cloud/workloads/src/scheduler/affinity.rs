//! Which nodes a pod's labels, affinities and tolerations admit.

use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint, Toleration,
};

use crate::meta::Labels;

/// Whether the node's labels are what `nodeSelector` and the required node affinity ask for.
pub fn admits(spec: &PodSpec, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let selector = spec.node_selector.iter().flatten();
    let equal = selector
        .into_iter()
        .all(|(key, value)| get(labels, key) == Some(value));
    let affinity = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| {
        affinity
            .required_during_scheduling_ignored_during_execution
            .as_ref()
    });
    equal
        && required.is_none_or(|required| {
            required
                .node_selector_terms
                .iter()
                .any(|term| term_admits(term, node))
        })
}

/// The weights of the preferred terms that the node fulfils, together.
pub fn preference(spec: &PodSpec, node: &Node) -> i64 {
    let affinity = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref());
    let preferred = affinity.and_then(|affinity| {
        affinity
            .preferred_during_scheduling_ignored_during_execution
            .as_ref()
    });
    let fulfilled = preferred
        .into_iter()
        .flatten()
        .filter(|term| term_admits(&term.preference, node));
    fulfilled.map(|term| i64::from(term.weight)).sum()
}

/// Whether a term admits the node. An empty one admits none.
pub fn term_admits(term: &NodeSelectorTerm, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let name = node.metadata.name.as_ref();
    let field = |requirement: &NodeSelectorRequirement| {
        requirement.key == "metadata.name" && holds(requirement, name)
    };
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|one| holds(one, get(labels, &one.key)))
        && fields.iter().all(field)
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&String>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let among = |value: &String| values.contains(value);
    let number = |text: &String| text.parse::<i64>().ok();
    let compared = |order: fn(&i64, &i64) -> bool| {
        let (have, [want]) = (value.and_then(number), values) else {
            return false;
        };
        have.zip(number(want))
            .is_some_and(|(have, want)| order(&have, &want))
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(among),
        "NotIn" => !value.is_some_and(among),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared(i64::gt),
        "Lt" => compared(i64::lt),
        _ => false,
    }
}

fn get<'a>(labels: Option<&'a Labels>, key: &str) -> Option<&'a String> {
    labels?.get(key)
}

/// Whether one of the tolerations tolerates the taint.
pub fn tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| {
        let effect = toleration.effect.as_deref().unwrap_or_default();
        let key = toleration.key.as_deref().unwrap_or_default();
        let operator = toleration.operator.as_deref().unwrap_or("Equal");
        let same =
            toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
        (effect.is_empty() || effect == taint.effect)
            && (key == taint.key || key.is_empty() && operator == "Exists")
            && match operator {
                "" | "Equal" => same,
                "Exists" => true,
                _ => false,
            }
    })
}

/// The node's taints with one of `effects` that the pod does not tolerate.
pub fn untolerated<'a>(pod: &'a Pod, node: &'a Node, effects: &'a [&str]) -> impl Iterator<Item = &'a Taint> {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref());
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref());
    let taints = taints.unwrap_or_default().iter();
    taints.filter(move |taint| {
        effects.contains(&taint.effect.as_str()) && !tolerated(taint, tolerations.unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};

    fn node(value: Value) -> Node {
        from_value(value).unwrap()
    }

    #[test]
    fn required_terms() {
        let node = node(json!({"metadata": {"name": "n", "labels": {"zone": "a", "size": "8"}}}));
        let admits = |term: Value| {
            let spec = json!({"containers": [], "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]},
            }}});
            admits(&from_value(spec).unwrap(), &node)
        };
        let expression = |key: &str, operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        assert!(admits(expression("zone", "In", &["a", "b"])));
        assert!(!admits(expression("zone", "NotIn", &["a"])));
        assert!(admits(expression("other", "NotIn", &["a"])));
        assert!(admits(expression("zone", "Exists", &[])));
        assert!(admits(expression("other", "DoesNotExist", &[])));
        assert!(admits(expression("size", "Gt", &["7"])));
        assert!(!admits(expression("size", "Lt", &["8"])));
        assert!(!admits(expression("zone", "Gt", &["7"])));
        assert!(!admits(json!({})));
        assert!(admits(
            json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]})
        ));
    }

    #[test]
    fn tolerations() {
        let taint: Taint = from_value(json!({"key": "k", "value": "v", "effect": "NoSchedule"})).unwrap();
        let tolerates = |toleration: Value| tolerated(&taint, &[from_value(toleration).unwrap()]);
        assert!(tolerates(json!({"operator": "Exists"})));
        assert!(tolerates(json!({"key": "k", "operator": "Exists"})));
        assert!(tolerates(json!({"key": "k", "value": "v"})));
        assert!(tolerates(
            json!({"key": "k", "value": "v", "effect": "NoSchedule"})
        ));
        assert!(!tolerates(json!({"key": "k", "value": "w"})));
        assert!(!tolerates(
            json!({"key": "k", "value": "v", "effect": "NoExecute"})
        ));
        assert!(!tolerates(json!({"value": "v"})));
    }
}
