//! How the node's interests and writes stand, as the projection has them.

use std::collections::BTreeMap;

use ledge_kubeapi::meta;
use ledge_projection::Changed;
use ledge_proto::fold::{FoldError, Read, Table, view};
use ledge_proto::v1;
use prost::Message;
use serde_json::{Value, json};

use crate::kinds::{OWN_GROUP, OWN_VERSION};

/// What a write's content comes to: the same request again has the same.
pub(crate) type Content = [u8; 32];

/// A write that stands in the log, without its body.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Standing {
    /// Without `body`.
    pub(crate) write: v1::KubeWrite,
    /// The body's size.
    pub(crate) bytes: usize,
    pub(crate) content: Content,
    /// When it was asked for, wall clock, microseconds since 1970.
    pub(crate) since_us: i64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) interests: BTreeMap<String, v1::Interest>,
    pub(crate) states: BTreeMap<String, v1::InterestState>,
    pub(crate) writes: BTreeMap<String, Standing>,
    pub(crate) results: BTreeMap<String, v1::KubeWriteResult>,
}

/// What the content of a write comes to.
pub(crate) fn content(write: &v1::KubeWrite) -> Content {
    // What the writer saw last is no part of what he asks for.
    let asked = v1::KubeWrite {
        based_on: String::new(),
        ..write.clone()
    };
    *blake3::hash(&asked.encode_to_vec()).as_bytes()
}

impl Ledger {
    /// Takes up one entry as the view has it.
    pub(crate) fn take_row<R: Read>(
        &mut self,
        view: &R,
        changed: &Changed,
    ) -> Result<(), FoldError<R::Error>> {
        let Changed { scope, table, key } = changed;
        match table {
            Table::Interests => put(&mut self.interests, key, view::entry(view, scope, *table, key)?),
            Table::InterestStates => put(&mut self.states, key, view::entry(view, scope, *table, key)?),
            Table::KubeWriteResults => put(&mut self.results, key, view::entry(view, scope, *table, key)?),
            Table::KubeWrites => {
                let found = view::entry::<_, v1::KubeWrite>(view, scope, *table, key)?;
                let standing = found.map(|latest| {
                    let mut write = latest.content;
                    let content = content(&write);
                    let body = std::mem::take(&mut write.body);
                    Standing {
                        write,
                        bytes: body.len(),
                        content,
                        since_us: latest.wall_us,
                    }
                });
                match standing {
                    Some(standing) => {
                        self.writes.insert(key.clone(), standing);
                    }
                    None => {
                        self.writes.remove(key);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Everything it holds something under.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (Table, String)> {
        let of = |table, keys: Vec<&String>| {
            let keys: Vec<_> = keys.into_iter().cloned().collect();
            keys.into_iter().map(move |key| (table, key))
        };
        of(Table::Interests, self.interests.keys().collect())
            .chain(of(Table::InterestStates, self.states.keys().collect()))
            .chain(of(Table::KubeWrites, self.writes.keys().collect()))
            .chain(of(Table::KubeWriteResults, self.results.keys().collect()))
    }

    /// The object that shows a write; `None` when there is no such write.
    pub(crate) fn shown(&self, id: &str) -> Option<Value> {
        let Standing {
            write,
            bytes,
            since_us,
            ..
        } = self.writes.get(id)?;
        let status = match self.results.get(id) {
            None => json!({ "state": "Pending" }),
            Some(result) => {
                let state = if result.code < 300 { "Done" } else { "Refused" };
                let mut status = json!({ "state": state, "code": result.code });
                if result.code >= 300
                    && let Ok(told) = serde_json::from_slice::<Value>(&result.json)
                {
                    for field in ["reason", "message"] {
                        if told[field].is_string() {
                            status[field] = told[field].clone();
                        }
                    }
                }
                status
            }
        };
        Some(json!({
            "apiVersion": format!("{OWN_GROUP}/{OWN_VERSION}"),
            "kind": "Write",
            "metadata": { "name": id, "uid": id, "creationTimestamp": meta::time(*since_us) },
            "spec": {
                "method": write.method,
                "path": write.path,
                "query": write.query,
                "contentType": write.content_type,
                "bodyBytes": bytes,
                "user": write.user,
                "basedOn": write.based_on,
                "object": write.object,
            },
            "status": status,
        }))
    }
}

fn put<T>(rows: &mut BTreeMap<String, T>, key: &str, found: Option<view::Latest<T>>) {
    match found {
        Some(latest) => {
            rows.insert(key.to_owned(), latest.content);
        }
        None => {
            rows.remove(key);
        }
    }
}
