//! Whether a write that may have been sent before was carried out then.

use kube::Client;
use ledge_proto::v1;
use serde_json::Value;

use super::request::{self, Answer, Request, Target, status};

/// What looking tells.
pub(super) enum Before {
    /// It was, and this is what would have been said.
    Done(Answer),
    /// It was not, or doing it again changes nothing.
    NotDone,
    /// The object changed, and nobody can tell by whom.
    Unknown,
}

/// Looks at what there is now.
pub(super) async fn done_before(
    client: &Client,
    request: &Request,
    write: &v1::KubeWrite,
) -> Result<Before, kube::Error> {
    let object = match &request.target {
        Target::Collection if request.method == http::Method::POST => {
            let name = request.value.as_ref().map(|value| &value["metadata"]["name"]);
            let Some(name) = name.and_then(Value::as_str) else {
                return Ok(Before::Unknown);
            };
            let made = request::get(client, &format!("{}/{name}", request.path)).await?;
            return Ok(match made {
                Some((answer, object)) if request.made(&object) => {
                    Before::Done(Answer { code: 201, ..answer })
                }
                _ => Before::NotDone,
            });
        }
        Target::Collection => return Ok(Before::Unknown),
        Target::Object => &request.path,
        // Another token does no harm, and an eviction of what is gone is told as such.
        Target::Subresource { name, .. } if ["token", "eviction"].contains(&name.as_str()) => {
            return Ok(Before::NotDone);
        }
        Target::Subresource { .. } if request.method == http::Method::POST => return Ok(Before::Unknown),
        Target::Subresource { object, .. } => object,
    };
    let there = request::get(client, object).await?;
    if request.method == http::Method::DELETE {
        return Ok(deleted(there, &write.based_on));
    }
    // What is gone cannot be changed: the API server says so again.
    let Some((answer, there)) = there else {
        return Ok(Before::NotDone);
    };
    let wanted = request.value.as_ref();
    let condition = wanted.and_then(|value| value["metadata"]["resourceVersion"].as_str());
    let condition = condition.filter(|version| !version.is_empty());
    let repeatable =
        request.method == http::Method::PUT || request.content_type() != "application/json-patch+json";
    let based_on = condition.or(match repeatable {
        true => None,
        false => Some(write.based_on.as_str()),
    });
    Ok(match based_on {
        None => Before::NotDone,
        Some(version) if there["metadata"]["resourceVersion"] == version => Before::NotDone,
        Some(_) if repeatable && wanted.is_some_and(|wanted| contains(&there, wanted)) => {
            Before::Done(answer)
        }
        Some(_) => Before::Unknown,
    })
}

fn deleted(there: Option<(Answer, Value)>, based_on: &str) -> Before {
    match there {
        None => Before::Done(status(200, "", "it is gone")),
        Some((answer, object)) if object["metadata"]["deletionTimestamp"].is_string() => Before::Done(answer),
        Some((_, object)) if object["metadata"]["resourceVersion"] == based_on => Before::NotDone,
        // Perhaps another one of the same name.
        Some(_) => Before::Unknown,
    }
}

/// Whether everything that `wanted` says is so in `there`, besides what each change changes.
fn contains(there: &Value, wanted: &Value) -> bool {
    const CHANGING: [&str; 3] = ["resourceVersion", "managedFields", "generation"];
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => wanted.iter().all(|(name, wanted)| {
            let there = there.get(name).unwrap_or(&Value::Null);
            CHANGING.contains(&name.as_str()) || contains(there, wanted)
        }),
        (Value::Array(there), Value::Array(wanted)) => {
            there.len() == wanted.len()
                && there
                    .iter()
                    .zip(wanted)
                    .all(|(there, wanted)| contains(there, wanted))
        }
        _ => there == wanted,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_may_say_more_than_was_wanted() {
        let there = json!({"metadata": {"name": "a", "resourceVersion": "7"}, "data": {"k": "v", "l": "w"}, "list": [{"a": 1, "b": 2}]});
        for (wanted, so) in [
            (
                json!({"metadata": {"name": "a", "resourceVersion": "6"}, "data": {"k": "v"}}),
                true,
            ),
            (json!({"data": {"k": "x"}}), false),
            (json!({"data": {"m": null}}), true),
            (json!({"data": {"k": null}}), false),
            (json!({"list": [{"a": 1}]}), true),
            (json!({"list": []}), false),
        ] {
            assert_eq!(contains(&there, &wanted), so, "{wanted}");
        }
    }
}
