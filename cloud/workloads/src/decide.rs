//! From what the API holds to what is to be done: a function of its arguments.

use jiff::Timestamp;

use crate::Settings;
use crate::names::Task;
use crate::plan::Plan;
use crate::service::{addresses, endpoints};
use crate::world::World;
use crate::{
    accounts, cron_job, daemon_set, deployment, job, replica_set, scheduler, stateful_set, strays, volumes,
};

/// What is to be done for `task` when it is `now`.
pub fn decide(world: &World, task: &Task, settings: &Settings, now: Timestamp) -> Plan {
    match task {
        Task::Account(namespace) => accounts::decide(world, namespace),
        Task::Service(name) => addresses::decide(world, name, settings),
        Task::Claim(name) => volumes::decide_claim(world, name, settings),
        Task::Volume(name) => volumes::decide_volume(world, name),
        Task::CronJob(name) => cron_job::decide(world, name, now),
        Task::Job(name) => job::decide(world, name, now),
        Task::Deployment(name) => deployment::decide(world, name, now),
        Task::ReplicaSet(name) => replica_set::decide(world, name, now),
        Task::StatefulSet(name) => stateful_set::decide(world, name, now),
        Task::DaemonSet(name) => daemon_set::decide(world, name, now),
        Task::Schedule => scheduler::decide(world, now),
        Task::Strays(node) => strays::decide(world, node),
        Task::Endpoints(name) => endpoints::decide(world, name),
    }
}
