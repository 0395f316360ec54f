//! Every kind has a schema and a source for each column.

use super::*;
use crate::table::{Include, Table, render};

#[test]
fn every_kind_is_read() {
    let kinds: Vec<Kind> = serde_json::from_str(KINDS).unwrap();
    let resources = resources();
    assert_eq!(resources.len(), kinds.len());
    for kind in &kinds {
        let resource = resources.iter().find(|found| found.kind == kind.kind).unwrap();
        assert_eq!(resource.columns.len(), kind.columns.len(), "{}", kind.kind);
        assert!(
            resource.schema.properties.contains_key("metadata"),
            "{}",
            kind.kind
        );
    }
    let total: usize = DOCUMENTS.iter().map(|(_, packed)| packed.len()).sum();
    assert!(total + KINDS.len() < 400_000, "{total}");
    for (path, _) in DOCUMENTS {
        assert!(document(path).unwrap().len() < DOCUMENT_MAX_BYTES, "{path}");
    }
    assert_eq!(document("apis/none/v1"), None);
}

/// Cells of recorded objects are those that a real API server showed (`tests/fixtures`).
#[test]
fn cells_as_the_api_server_shows_them() {
    const RECORDED: &str = include_str!("../../tests/fixtures/tables.json");
    let recorded: Value = serde_json::from_str(RECORDED).unwrap();
    let now_us = recorded["now_us"].as_i64().unwrap();
    let rows = recorded["rows"].as_array().unwrap();
    assert!(rows.len() > 40);
    let resources = resources();
    let mut wrong = Vec::new();
    for row in rows {
        let object = &row["object"];
        let resource = resources
            .iter()
            .find(|resource| object["kind"] == resource.kind.as_str())
            .unwrap();
        let shown = render(&Table {
            resource,
            objects: std::slice::from_ref(object),
            metadata: Value::Null,
            include: Include::None,
            columns: true,
            now_us,
        });
        let cells = shown["rows"][0]["cells"].as_array().unwrap();
        for (column, cell) in resource
            .columns
            .iter()
            .zip(cells)
            .filter(|(column, _)| column.name != "Age")
        {
            let theirs = &row["cells"][&column.name];
            if cell != theirs {
                let name = &object["metadata"]["name"];
                wrong.push(format!(
                    "{} {name} {}: ours {cell}, theirs {theirs}",
                    resource.kind, column.name
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
