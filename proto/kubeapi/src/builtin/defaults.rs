//! What the API server fills in.

use serde_json::Value;

use crate::resource::Resource;
use crate::schema;

/// Fills in what a client may leave out, as the API server does for its own kinds.
pub fn default(resource: &Resource, object: &mut Value) {
    schema::default(&resource.schema, object);
}
