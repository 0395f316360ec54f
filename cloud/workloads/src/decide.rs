//! From what the API holds to what is to be done: a function of its arguments.

use jiff::Timestamp;

use crate::Settings;
use crate::names::Task;
use crate::plan::Plan;
use crate::world::World;
use crate::{cron_job, daemon_set, deployment, job, replica_set, scheduler, stateful_set, strays};

/// What is to be done for `task` when it is `now`.
pub fn decide(world: &World, task: &Task, _: &Settings, now: Timestamp) -> Plan {
    match task {
        Task::CronJob(name) => cron_job::decide(world, name, now),
        Task::Job(name) => job::decide(world, name, now),
        Task::Deployment(name) => deployment::decide(world, name, now),
        Task::ReplicaSet(name) => replica_set::decide(world, name, now),
        Task::StatefulSet(name) => stateful_set::decide(world, name, now),
        Task::DaemonSet(name) => daemon_set::decide(world, name, now),
        Task::Schedule => scheduler::decide(world, now),
        Task::Strays(node) => strays::decide(world, node),
    }
}
