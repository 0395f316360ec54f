//! Every kind has a schema and a source for each column.

use super::*;

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
