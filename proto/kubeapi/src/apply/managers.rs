//! `metadata.managedFields`.
//!
//! Source: `k8s.io/apimachinery/pkg/util/managedfields/internal`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::fields::Fields;

/// Most managers that changed an object otherwise than by apply; more are put together as `ancient-changes`.
const MAX_UPDATERS: usize = 10;
const ANCIENT: &str = "ancient-changes";

/// Who a manager is. The order is that of messages.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Manager {
    pub(super) name: String,
    pub(super) applies: bool,
    /// Empty for one that applies: it is the same whatever version it applies.
    pub(super) api_version: String,
    pub(super) subresource: String,
}

impl std::fmt::Display for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&crate::schema::cause::quote(&self.name))?;
        if !self.subresource.is_empty() {
            write!(
                f,
                " with subresource {}",
                crate::schema::cause::quote(&self.subresource)
            )?;
        }
        if !self.applies {
            write!(f, " using {}", self.api_version)?;
        }
        Ok(())
    }
}

/// What a manager owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) fields: Fields,
    pub(super) api_version: String,
    pub(super) time: Option<String>,
}

/// All managers of an object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Managers {
    pub(super) all: BTreeMap<Manager, Owned>,
}

impl Managers {
    /// Those of `object`; none where it says nothing.
    pub(super) fn of(object: &Value) -> Result<Managers, String> {
        let mut out = Managers::default();
        let entries = object["metadata"]["managedFields"].as_array();
        for (at, entry) in entries.into_iter().flatten().enumerate() {
            let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
            let applies = match entry["operation"].as_str() {
                Some("Apply") => true,
                Some("Update") => false,
                _ => return Err("operation must be `Apply` or `Update`".to_owned()),
            };
            let api_version = text("apiVersion");
            if api_version.is_empty() {
                return Err("apiVersion must not be empty".to_owned());
            }
            match text("fieldsType").as_str() {
                "FieldsV1" => {}
                "" => return Err(format!("missing fieldsType in managed fields entry {at}")),
                other => {
                    return Err(format!(
                        "invalid fieldsType \"{other}\" in managed fields entry {at}"
                    ));
                }
            }
            let fields = match &entry["fieldsV1"] {
                Value::Null => Fields::default(),
                json => Fields::parse(json).map_err(|why| format!("error decoding set: {why}"))?,
            };
            let manager = Manager {
                name: text("manager"),
                applies,
                api_version: if applies {
                    String::new()
                } else {
                    api_version.clone()
                },
                subresource: text("subresource"),
            };
            let time = entry["time"].as_str().map(str::to_owned);
            let owned = Owned {
                fields,
                api_version,
                time,
            };
            out.all.insert(manager, owned);
        }
        Ok(out)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether `object` asks for the account to be dropped: an empty list, or a list of one empty entry.
    pub(super) fn reset(object: &Value) -> bool {
        match object["metadata"]
            .get("managedFields")
            .and_then(Value::as_array)
            .map(Vec::as_slice)
        {
            Some([]) => true,
            Some([Value::Object(entry)]) => entry.is_empty(),
            _ => false,
        }
    }

    /// Puts it into `object`.
    pub(super) fn put(self, object: &mut Value) {
        let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
            return;
        };
        metadata.remove("managedFields");
        if self.all.is_empty() {
            return;
        }
        let mut entries: Vec<(Manager, Owned)> = self.all.into_iter().collect();
        entries.sort_by_cached_key(|(manager, owned)| {
            let key = (!manager.applies, seconds(owned.time.as_deref()));
            (
                key,
                manager.name.clone(),
                owned.api_version.clone(),
                manager.subresource.clone(),
            )
        });
        let entries = entries.into_iter().map(|(manager, owned)| {
            let mut entry = Map::new();
            entry.insert("manager".to_owned(), manager.name.into());
            let operation = if manager.applies { "Apply" } else { "Update" };
            entry.insert("operation".to_owned(), operation.into());
            entry.insert("apiVersion".to_owned(), owned.api_version.into());
            if let Some(time) = owned.time {
                entry.insert("time".to_owned(), time.into());
            }
            entry.insert("fieldsType".to_owned(), "FieldsV1".into());
            entry.insert("fieldsV1".to_owned(), owned.fields.json());
            if !manager.subresource.is_empty() {
                entry.insert("subresource".to_owned(), manager.subresource.into());
            }
            Value::Object(entry)
        });
        metadata.insert("managedFields".to_owned(), entries.collect());
    }

    /// Puts the oldest of too many managers that do not apply together.
    pub(super) fn cap(&mut self) {
        let mut updaters: Vec<Manager> = self
            .all
            .keys()
            .filter(|manager| !manager.applies)
            .cloned()
            .collect();
        let mut count = updaters.len();
        if count <= MAX_UPDATERS {
            return;
        }
        let time_of = |manager: &Manager| {
            let owned = self.all.get(manager);
            seconds(owned.and_then(|owned| owned.time.as_deref()))
        };
        updaters.sort_by_cached_key(|manager| (time_of(manager), manager.clone()));
        let mut first_of_version: BTreeMap<String, Manager> = BTreeMap::new();
        for manager in updaters {
            if count <= MAX_UPDATERS {
                break;
            }
            let version = manager.api_version.clone();
            let bucket = Manager {
                name: ANCIENT.to_owned(),
                applies: false,
                api_version: version.clone(),
                subresource: String::new(),
            };
            let Some(first) = first_of_version.get(&version) else {
                first_of_version.insert(version, manager);
                continue;
            };
            if !self.all.contains_key(&bucket)
                && let Some(owned) = self.all.remove(first)
            {
                self.all.insert(bucket.clone(), owned);
            }
            if manager != bucket
                && let Some(owned) = self.all.remove(&manager)
                && let Some(into) = self.all.get_mut(&bucket)
            {
                into.fields = into.fields.union(&owned.fields);
                into.time = owned.time;
                count -= 1;
            }
        }
    }

    /// Takes `fields` from everybody but `but`; whoever has nothing left is not listed any more.
    pub(super) fn take(&mut self, fields: &Fields, but: Option<&Manager>) {
        for (manager, owned) in &mut self.all {
            if Some(manager) != but {
                owned.fields = owned.fields.difference(fields);
            }
        }
        self.all.retain(|_, owned| !owned.fields.is_empty());
    }
}

/// RFC 3339 in seconds; 0 for what is not.
fn seconds(time: Option<&str>) -> i64 {
    let parsed = time.and_then(|time| chrono::DateTime::parse_from_rfc3339(time).ok());
    parsed.map_or(0, |time| time.timestamp())
}

/// Fields of every object that nobody owns.
pub(super) fn nobodys() -> Fields {
    let nothing = || json!({});
    let fields = json!({
        "f:apiVersion": nothing(), "f:kind": nothing(),
        "f:metadata": {
            ".": {}, "f:name": {}, "f:namespace": {}, "f:creationTimestamp": {}, "f:selfLink": {}, "f:uid": {},
            "f:clusterName": {}, "f:generation": {}, "f:managedFields": {}, "f:resourceVersion": {},
        },
    });
    Fields::parse(&fields).unwrap_or_default()
}
