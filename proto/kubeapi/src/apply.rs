//! Server-side apply, and the account of who owns which field (`metadata.managedFields`) that it rests on.
//!
//! Reading order: this file (who may do what), [`managers`] (the account), [`fields`] (sets of paths), [`typed`] (objects
//! seen through their schema).
//!
//! Source: `sigs.k8s.io/structured-merge-diff/v6/merge` and `k8s.io/apimachinery/pkg/util/managedfields`. Managers of
//! other versions of a kind are taken as if their fields were those of the version written.

mod fields;
mod managers;
mod typed;

use serde_json::Value;

use crate::error::{ApiError, Cause, Details, Reason};
use crate::schema::{MAX_DEPTH, Schema, cause};
use fields::Fields;
use managers::{Manager, Managers, Owned};

/// Where `kubectl apply` without `--server-side` keeps what it applied.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Most bytes of the annotation that this module writes: all annotations of an object together may have so many.
const LAST_APPLIED_MAX_BYTES: usize = 256 * 1024;
/// Longest name of a manager, bytes.
pub const MANAGER_MAX_BYTES: usize = 128;

/// Who writes, and through what.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// `fieldManager` of the request, or what stands for it: the beginning of the user agent.
    pub manager: &'a str,
    /// Schema of the kind in [`Writer::api_version`].
    pub schema: &'a Schema,
    /// `apiVersion` of the request.
    pub api_version: &'a str,
    /// Now, RFC 3339 in seconds.
    pub time: &'a str,
    /// Such as `status`; empty for the object itself.
    pub subresource: &'a str,
    /// Whether the kind has a `status` subresource: then `status` is owned by those who write through it, and nothing
    /// else is.
    pub has_status: bool,
}

impl Writer<'_> {
    fn manager(&self, name: &str, applies: bool) -> Manager {
        Manager {
            name: name.to_owned(),
            applies,
            api_version: if applies {
                String::new()
            } else {
                self.api_version.to_owned()
            },
            subresource: self.subresource.to_owned(),
        }
    }

    /// The fields that this way of writing cannot change are nobody's business here: `status` or all else.
    fn filter(&self) -> Option<(&'static str, bool)> {
        match self.subresource {
            "status" => Some(("status", true)),
            "" if self.has_status => Some(("status", false)),
            _ => None,
        }
    }

    fn compare(&self, old: &Value, new: &Value) -> typed::Comparison {
        let found = typed::compare(Some(self.schema), old, new);
        match self.filter() {
            Some((name, keep)) => found.filter_root(name, keep),
            None => found,
        }
    }
}

/// What is wrong with the `fieldManager` of a request. `required` is for apply, where there has to be one.
pub fn check_manager(manager: &str, required: bool) -> Option<Cause> {
    let field = "fieldManager";
    if manager.is_empty() {
        return required.then(|| cause::required(field, "is required for apply patch"));
    }
    if manager.len() > MANAGER_MAX_BYTES {
        let max = u64::try_from(MANAGER_MAX_BYTES).unwrap_or(u64::MAX);
        return Some(cause::too_long(field, max));
    }
    let unprintable = manager.chars().any(char::is_control);
    unprintable.then(|| cause::invalid(field, &manager.into(), "should only contain printable characters"))
}

/// Applies `config`: what it says becomes so and is owned by the writer, and what the writer owned and it does not say any
/// more goes away, unless somebody else owns it too. `live` is the object as it is, `None` when there is none. The answer
/// is the whole object with its account; nothing is defaulted or validated yet, and a `resourceVersion` that `config`
/// gives stands in it, to be compared by the caller.
///
/// # Errors
/// `Conflict` with a cause for each field that others own and `config` would change, unless `force` takes it from them;
/// `BadRequest` for another version or with managed fields in `config`; 500 in upstream's words for what does not fit the
/// schema.
pub fn apply(
    live: Option<&Value>,
    config: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, ApiError> {
    check_config(live, config, writer)?;
    let mut live = live
        .cloned()
        .unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    let decoded = Managers::of(&live);
    let mut managers = decoded.map_err(|why| {
        ApiError::new(
            Reason::InternalError,
            format!("failed to decode managed fields: {why}"),
        )
    })?;
    forget_account(&mut live);
    if managers.is_empty() {
        // Nobody kept account so far: all that is there belongs to somebody unknown.
        let unknown = writer.manager("before-first-apply", false);
        changed(&mut managers, &nothing(writer), &live, writer, unknown);
    }
    let before = managers.clone();
    let applied = match applied(&live, config, managers, writer, force) {
        Ok(applied) => Ok(applied),
        Err(conflicts) => match not_upgraded(&live, writer, conflicts) {
            none if none.is_empty() => applied(&live, config, before, writer, true),
            conflicts => Err(conflicts),
        },
    };
    let (mut object, managers) = applied.map_err(conflict)?;
    refresh_last_applied(&mut object, config, writer);
    managers.put(&mut object);
    Ok(object)
}

fn check_config(live: Option<&Value>, config: &Value, writer: &Writer<'_>) -> Result<(), ApiError> {
    let deep = [Some(config), live]
        .into_iter()
        .flatten()
        .any(|value| !shallow(value, MAX_DEPTH));
    if deep {
        return Err(ApiError::bad_request("the object is nested too deeply"));
    }
    let text = |name: &str| config[name].as_str().unwrap_or_default();
    if text("apiVersion") != writer.api_version {
        let kind = kind_of(text("apiVersion"), text("kind"));
        return Err(ApiError::bad_request(format!("invalid object type: {kind}")));
    }
    if config["metadata"]
        .get("managedFields")
        .is_some_and(|fields| !fields.is_null())
    {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let wrong = typed::wrong(writer.schema, config);
    let wrong = match wrong.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("errors:\n  {}", many.join("\n  "))),
    };
    if let Some(wrong) = wrong {
        let name =
            |value: &Value, name: &str| value["metadata"][name].as_str().unwrap_or_default().to_owned();
        return Err(ApiError::new(
            Reason::InternalError,
            format!(
                "failed to create typed patch object ({}/{}; {}): {wrong}",
                name(config, "namespace"),
                name(config, "name"),
                kind_of(writer.api_version, text("kind"))
            ),
        ));
    }
    Ok(())
}

/// A kind as upstream writes it: the group before the slash may be empty.
fn kind_of(api_version: &str, kind: &str) -> String {
    let slash = if api_version.contains('/') { "" } else { "/" };
    format!("{slash}{api_version}, Kind={kind}")
}

fn shallow(value: &Value, depth: usize) -> bool {
    let below = |value: &Value| shallow(value, depth.saturating_sub(1));
    match value {
        Value::Object(fields) => depth > 0 && fields.values().all(below),
        Value::Array(elements) => depth > 0 && elements.iter().all(below),
        _ => true,
    }
}

fn empty() -> Value {
    Value::Object(serde_json::Map::new())
}

/// What changes of a new object are counted from.
fn nothing(writer: &Writer<'_>) -> Value {
    writer.schema.empty.clone().unwrap_or_else(empty)
}

fn forget_account(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

type Conflicts = Vec<(Manager, Fields)>;

fn applied(
    live: &Value,
    config: &Value,
    mut managers: Managers,
    writer: &Writer<'_>,
    force: bool,
) -> Result<(Value, Managers), Conflicts> {
    let schema = Some(writer.schema);
    let me = writer.manager(writer.manager, true);
    let merged = typed::merge(schema, live, config);
    let mut set = typed::fields_of(schema, config);
    if let Some((name, keep)) = writer.filter() {
        set = set.filter_root(name, keep);
    }
    let last = managers.all.get(&me).cloned();
    let owned = Owned {
        fields: set,
        api_version: writer.api_version.to_owned(),
        time: last.as_ref().and_then(|last| last.time.clone()),
    };
    managers.all.insert(me.clone(), owned);
    let object = match &last {
        Some(last) if !last.fields.is_empty() => prune(writer.schema, merged, &managers, &last.fields),
        _ => merged,
    };
    let comparison = writer.compare(live, &object);
    let set = comparison.set();
    let conflicts = managers
        .all
        .iter()
        .filter(|(manager, _)| **manager != me)
        .filter_map(|(manager, owned)| {
            let conflict = owned.fields.intersection(&set);
            (!conflict.is_empty()).then(|| (manager.clone(), conflict))
        });
    let conflicts: Conflicts = conflicts.collect();
    if !conflicts.is_empty() && !force {
        return Err(conflicts);
    }
    managers.take(&set.union(&comparison.removed), Some(&me));
    if let Some(owned) = managers.all.get_mut(&me) {
        owned.fields = owned.fields.difference(&managers::nobodys());
        if object != *live {
            owned.time = Some(writer.time.to_owned());
        }
    }
    managers.all.retain(|_, owned| !owned.fields.is_empty());
    Ok((object, managers))
}

/// Takes away what the writer owned before (`last`) and neither it nor anybody else owns now.
fn prune(schema: &Schema, merged: Value, managers: &Managers, last: &Fields) -> Value {
    let schema = Some(schema);
    let listed = |fields: &Fields| fields.with_listed(schema);
    let without = |fields: &Fields| typed::remove(schema, &merged, fields, true);
    let had = listed(&typed::fields_of(schema, &merged));
    let last = listed(last);
    let left = |object: &Value| listed(&typed::fields_of(schema, object));
    let pruned = without(&last);
    // What anybody owns comes back,
    let each = managers.all.values().map(|owned| &owned.fields);
    let owned = each.fold(Fields::default(), |all, fields| all.union(fields));
    let pruned = without(&had.difference(&left(&pruned).union(&listed(&owned))));
    // and so does what went away only because of what it was in.
    let gone = had.difference(&left(&pruned)).intersection(&last);
    typed::remove(schema, &merged, &gone, false)
}

fn conflict(conflicts: Conflicts) -> ApiError {
    let mut count = 0;
    let mut each: Vec<(&Manager, Vec<String>)> = Vec::new();
    for (manager, fields) in &conflicts {
        let mut paths = fields.paths();
        let left = cause::MAX_CAUSES.saturating_sub(count);
        count += paths.len();
        paths.truncate(left);
        each.push((manager, paths));
    }
    each.retain(|(_, paths)| !paths.is_empty());
    let causes = each.iter().flat_map(|(manager, paths)| {
        paths.iter().map(move |path| Cause {
            reason: "FieldManagerConflict",
            message: format!("conflict with {manager}"),
            field: path.clone(),
        })
    });
    let causes: Vec<Cause> = causes.collect();
    let message = match causes.as_slice() {
        [one] => format!("Apply failed with 1 conflict: {}: {}", one.message, one.field),
        _ => {
            let told = each.iter().map(|(manager, paths)| {
                let paths: Vec<String> = paths.iter().map(|path| format!("\n- {path}")).collect();
                format!("conflicts with {manager}:{}", paths.concat())
            });
            let told: Vec<String> = told.collect();
            format!("Apply failed with {count} conflicts: {}", told.join("\n"))
        }
    };
    let mut error = ApiError::new(Reason::Conflict, message);
    error.details = Some(Box::new(Details {
        causes,
        ..Details::default()
    }));
    error
}

/// The conflicts that `kubectl apply --server-side` may not just win: all but those about fields that `kubectl apply` of
/// the other kind set and that are still so.
fn not_upgraded(live: &Value, writer: &Writer<'_>, conflicts: Conflicts) -> Conflicts {
    let annotation = live["metadata"]["annotations"][LAST_APPLIED].as_str();
    let annotation = annotation.filter(|_| writer.manager == "kubectl");
    let last = annotation.and_then(|text| serde_json::from_str::<Value>(text).ok());
    let Some(last) = last.filter(|last| last["apiVersion"] == writer.api_version) else {
        return conflicts;
    };
    let schema = Some(writer.schema);
    let comparison = typed::compare(schema, &last, live);
    let changed = comparison.set().union(&comparison.removed);
    let allowed = typed::fields_of(schema, &last).difference(&changed);
    let rest = conflicts
        .into_iter()
        .map(|(manager, fields)| (manager, fields.difference(&allowed)));
    rest.filter(|(_, fields)| !fields.is_empty()).collect()
}

/// Keeps the annotation of `kubectl apply` right where there is one, so that going back works.
fn refresh_last_applied(object: &mut Value, config: &Value, writer: &Writer<'_>) {
    if writer.manager != "kubectl" {
        return;
    }
    let Some(annotation) = object
        .pointer_mut("/metadata/annotations")
        .and_then(|all| all.get_mut(LAST_APPLIED))
    else {
        return;
    };
    if annotation.as_str().is_none_or(str::is_empty) {
        return;
    }
    let mut config = config.clone();
    let annotations = config
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut);
    annotations.map(|all| all.remove(LAST_APPLIED));
    let text = format!("{config}\n");
    *annotation = if text.len() > LAST_APPLIED_MAX_BYTES {
        "".into()
    } else {
        text.into()
    };
}

/// Keeps account of a write that is not an apply: `after` is what becomes of `before` (`None` for a new object). The
/// writer owns what changed. A client that sends `managedFields: []` drops the account.
pub fn track(before: Option<&Value>, mut after: Value, writer: &Writer<'_>) -> Value {
    let of_before = || {
        before
            .and_then(|before| Managers::of(before).ok())
            .unwrap_or_default()
    };
    let mut managers = if !writer.subresource.is_empty() {
        of_before()
    } else if Managers::reset(&after) {
        Managers::default()
    } else {
        // A client that knows nothing of the account does not drop it.
        let sent = Managers::of(&after).ok().filter(|sent| !sent.is_empty());
        sent.unwrap_or_else(of_before)
    };
    forget_account(&mut after);
    if managers.is_empty() && before.is_some() {
        return after;
    }
    let mut before = before.cloned().unwrap_or_else(|| nothing(writer));
    forget_account(&mut before);
    let me = writer.manager(writer.manager, false);
    changed(&mut managers, &before, &after, writer, me);
    managers.cap();
    managers.put(&mut after);
    after
}

/// What differs between `before` and `after` is `me`'s now.
fn changed(managers: &mut Managers, before: &Value, after: &Value, writer: &Writer<'_>, me: Manager) {
    let comparison = writer.compare(before, after);
    let set = comparison.set();
    managers.take(&set.union(&comparison.removed), None);
    let mine = set.difference(&managers::nobodys());
    if mine.is_empty() {
        return;
    }
    let fields = match managers.all.get(&me) {
        Some(previous) => previous.fields.union(&mine),
        None => mine,
    };
    let owned = Owned {
        fields,
        api_version: writer.api_version.to_owned(),
        time: Some(writer.time.to_owned()),
    };
    managers.all.insert(me, owned);
}

#[cfg(test)]
mod tests;
