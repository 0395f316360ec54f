//! The loop: takes in what the watches tell, decides for every task that it concerns, carries that out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::carry::{Outcome, carry};
use crate::clock::Clock;
use crate::decide::decide;
use crate::feed::{Feed, feed};
use crate::names::Task;
use crate::notes::Notes;
use crate::plan::{Action, Note, Plan};
use crate::world::World;

/// The first wait after something was refused; each further one is twice as long.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// The longest wait.
const RETRY_LAST: Duration = Duration::from_secs(30);
/// What watches tell is taken in at most this far between two tasks, so that tasks get their turn.
const TAKEN_AT_ONCE: usize = 4096;

pub(crate) struct Runner {
    client: Client,
    clock: Arc<dyn Clock>,
    settings: crate::Settings,
    world: World,
    notes: Notes,
    /// To be looked at now.
    tasks: BTreeSet<Task>,
    /// To be looked at when their time has come.
    due: BTreeMap<Task, Timestamp>,
    /// To be tried again, and how often that was done already.
    retries: BTreeMap<Task, (u32, Instant)>,
}

impl Runner {
    pub(crate) fn new(client: Client, clock: Arc<dyn Clock>, settings: crate::Settings) -> Runner {
        Runner {
            client,
            clock,
            settings,
            world: World::default(),
            notes: Notes::default(),
            tasks: BTreeSet::new(),
            due: BTreeMap::new(),
            retries: BTreeMap::new(),
        }
    }

    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut feed = feed(&self.client);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                input = feed.next() => match input {
                    Some(input) => self.world.fold(input, &mut self.tasks),
                    None => return,
                },
                () = self.woken(), if self.world.listed() => {}
            }
            self.take_in(&mut feed);
            // An object that is not listed may be there: nothing is decided before.
            while self.world.listed() && !shutdown.is_cancelled() {
                let Some(task) = self.next() else { break };
                self.work(task).await;
                self.take_in(&mut feed);
            }
        }
    }

    /// Takes in what is told already.
    fn take_in(&mut self, feed: &mut Feed) {
        for _ in 0..TAKEN_AT_ONCE {
            match feed.next().now_or_never() {
                Some(Some(input)) => self.world.fold(input, &mut self.tasks),
                _ => return,
            }
        }
    }

    /// Returns when a task is due or to be tried again.
    async fn woken(&self) {
        let due = async {
            match self.due.values().min() {
                Some(at) => self.clock.wait_until(*at).await,
                None => std::future::pending().await,
            }
        };
        let retry = async {
            match self.retries.values().map(|(_, at)| *at).min() {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = retry => {}
        }
    }

    /// The next task that may be looked at.
    fn next(&mut self) -> Option<Task> {
        let (now, instant) = (self.clock.now(), Instant::now());
        self.due.retain(|task, at| {
            let over = *at <= now;
            if over {
                self.tasks.insert(task.clone());
            }
            !over
        });
        let over = self.retries.iter().filter(|(_, (_, at))| *at <= instant);
        self.tasks.extend(over.map(|(task, _)| task.clone()));
        // What waits to be tried again is not tried earlier because of a change.
        let waits = |task: &&Task| self.retries.get(task).is_none_or(|(_, at)| *at <= instant);
        let task = self.tasks.iter().find(waits).cloned()?;
        self.tasks.remove(&task);
        Some(task)
    }

    async fn work(&mut self, task: Task) {
        let now = self.clock.now();
        let Plan {
            actions,
            notes,
            again,
        } = decide(&self.world, &task, &self.settings, now);
        match again {
            Some(at) => self.due.insert(task.clone(), at),
            None => self.due.remove(&task),
        };
        let mut notes = notes;
        let acted = !actions.is_empty();
        let mut refused = None;
        for (action, outcome) in carry(&self.client, actions).await {
            // One pod that changed meanwhile does not hold up the others: its change comes, and is looked at.
            let changed = matches!(outcome, Outcome::Stale(_));
            let why = self.settle(&action, outcome, &mut notes);
            if let Some(why) = why.filter(|_| !changed || task != Task::Schedule) {
                tracing::debug!(%task, kind = ?action.kind, name = %action.name, why, "not done");
                refused.get_or_insert(why);
            }
        }
        self.notes.write(&self.client, notes, now).await;
        if let Some(why) = refused {
            let tried = self.retries.get(&task).map_or(0, |(tried, _)| *tried);
            let wait = RETRY_FIRST.saturating_mul(1 << tried.min(16)).min(RETRY_LAST);
            self.retries
                .insert(task.clone(), (tried.saturating_add(1), Instant::now() + wait));
            self.world.troubles.insert(task, why);
        } else {
            self.retries.remove(&task);
            let had_trouble = self.world.troubles.remove(&task).is_some();
            if acted || had_trouble {
                self.tasks.insert(task);
            }
        }
    }

    /// Takes in what became of an action; gives why it was not done.
    fn settle(&mut self, action: &Action, outcome: Outcome, notes: &mut Vec<Note>) -> Option<String> {
        let mut name = action.name.name.clone();
        let refused = match outcome {
            Outcome::Is(value) => {
                if let Some(made) = value["metadata"]["name"].as_str() {
                    made.clone_into(&mut name);
                }
                let written = self.world.written(action.kind, value, &mut self.tasks);
                written.err().map(|error| error.to_string())
            }
            Outcome::Gone { uid } => {
                self.world
                    .removed(action.kind, &action.name, &uid, &mut self.tasks);
                None
            }
            Outcome::Bound { node } => {
                self.world.bound(&action.name, &node, &mut self.tasks);
                None
            }
            Outcome::Stale(why) => return Some(why),
            Outcome::Refused(why) => Some(why),
        };
        if let Some(told) = &action.told {
            let ((reason, message), filling) = match &refused {
                None => (&told.done, &name),
                Some(why) => (&told.refused, why),
            };
            if !reason.is_empty() {
                notes.push(Note {
                    about: told.about.clone(),
                    warning: refused.is_some(),
                    reason,
                    message: message.replace("{}", filling),
                });
            }
        }
        refused
    }
}
