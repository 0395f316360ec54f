//! Where devices are written: a directory, an API, or both.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::api::{ApiObjects, Said};
use crate::manifests::{Objects, Problem, Severity, Snapshot, Source};

/// All there is.
#[derive(Debug)]
pub(super) struct Sources {
    directory: Option<Following<Snapshot>>,
    api: Option<Following<ApiObjects>>,
}

/// One of them. What it said last holds when it says nothing any more: that is no word of what is gone.
#[derive(Debug)]
struct Following<T> {
    said: watch::Receiver<Arc<T>>,
    ended: bool,
}

/// What all of them say together.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Written {
    pub(super) objects: Arc<Objects>,
    pub(super) problems: Vec<Problem>,
    /// Labels of Nodes of the API.
    pub(super) nodes: BTreeMap<String, BTreeMap<String, String>>,
}

impl Sources {
    pub(super) fn new(directory: Option<watch::Receiver<Arc<Snapshot>>>, said: Option<&Said>) -> Sources {
        Sources {
            directory: directory.map(Following::new),
            api: said.map(Said::objects).map(Following::new),
        }
    }

    /// What they say now.
    pub(super) fn now(&mut self) -> Written {
        let directory = self.directory.as_mut().map(Following::now);
        let api = self.api.as_mut().map(Following::now);
        match (directory, api) {
            (None, None) => Written::default(),
            (Some(directory), None) => Written {
                objects: directory.objects.clone(),
                problems: directory.problems.clone(),
                nodes: BTreeMap::new(),
            },
            (None, Some(api)) => Written {
                objects: Arc::new(api.objects.clone()),
                problems: api.problems.clone(),
                nodes: api.nodes.clone(),
            },
            (Some(directory), Some(api)) => together(&directory, &api),
        }
    }

    /// Waits until one of them says something else.
    pub(super) async fn changed(&mut self) {
        tokio::select! {
            () = next(&mut self.directory) => {}
            () = next(&mut self.api) => {}
        }
    }
}

impl<T> Following<T> {
    fn new(said: watch::Receiver<Arc<T>>) -> Self {
        Following { said, ended: false }
    }

    fn now(&mut self) -> Arc<T> {
        self.said.borrow_and_update().clone()
    }
}

async fn next<T>(source: &mut Option<Following<T>>) {
    if let Some(source) = source
        && !source.ended
    {
        match source.said.changed().await {
            Ok(()) => return,
            Err(_) => source.ended = true,
        }
    }
    std::future::pending().await
}

/// An object that both have is the API's.
fn together(directory: &Snapshot, api: &ApiObjects) -> Written {
    let mut objects = (*directory.objects).clone();
    let mut problems = directory.problems.clone();
    let mut twice = |key, source: &Source| {
        let message = "the API has this object too, and the API's holds".to_owned();
        let problem = Problem::of_object(key, source, Severity::Error, message);
        problems.push(problem.hint("take it out of the directory"));
    };
    for (key, device) in &directory.objects.devices {
        if api.objects.devices.contains_key(key) || api.objects.refused.contains(key) {
            twice(key, &device.source);
            objects.devices.remove(key);
        }
    }
    for (key, model) in &directory.objects.models {
        if api.objects.models.contains_key(key) || api.objects.refused.contains(key) {
            twice(key, &model.source);
            objects.models.remove(key);
        }
    }
    let of_api = &api.objects;
    objects
        .refused
        .retain(|key| !of_api.devices.contains_key(key) && !of_api.models.contains_key(key));
    let mine = |(key, object): (&_, &_)| (Clone::clone(key), Clone::clone(object));
    objects.devices.extend(of_api.devices.iter().map(mine));
    let mine = |(key, object): (&_, &_)| (Clone::clone(key), Clone::clone(object));
    objects.models.extend(of_api.models.iter().map(mine));
    objects.refused.extend(of_api.refused.iter().cloned());
    objects.incomplete |= of_api.incomplete;
    problems.extend(api.problems.iter().cloned());
    Written {
        objects: Arc::new(objects),
        problems,
        nodes: api.nodes.clone(),
    }
}
