//! From what the API holds to what is to be done: a function of its arguments.

use k8s_openapi::jiff::Timestamp;

use crate::Settings;
use crate::names::Task;
use crate::plan::Plan;
use crate::world::World;
use crate::{deployment, replica_set, scheduler, strays};

/// What is to be done for `task` when it is `now`.
pub fn decide(world: &World, task: &Task, _: &Settings, now: Timestamp) -> Plan {
    match task {
        Task::Deployment(name) => deployment::decide(world, name, now),
        Task::ReplicaSet(name) => replica_set::decide(world, name, now),
        Task::Schedule => scheduler::decide(world, now),
        Task::Strays(node) => strays::decide(world, node),
    }
}
