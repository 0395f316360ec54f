//! The ServiceAccount `default` of each namespace.

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::meta::terminating;
use crate::names::Name;
use crate::plan::{Action, Plan};
use crate::world::World;

/// The account that a pod has when it names none.
const DEFAULT: &str = "default";

/// Makes the account of a namespace that lacks it.
pub fn decide(world: &World, namespace: &str) -> Plan {
    let there = world.namespaces.get(&Name::new("", namespace));
    let name = Name::new(namespace, DEFAULT);
    if there.is_none_or(|there| terminating(&there.metadata)) || world.accounts.get(&name).is_some() {
        return Plan::default();
    }
    let account = ServiceAccount {
        metadata: ObjectMeta {
            name: Some(name.name),
            namespace: Some(name.namespace),
            ..ObjectMeta::default()
        },
        ..ServiceAccount::default()
    };
    Plan::of(vec![Action::create(&account)])
}
