//! The table of messages: which fields they have, and what these are in JSON.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

const PACKED: &[u8] = include_bytes!("../../openapi/protobuf.json.zst");
/// More than the table is when it is unpacked.
const TABLE_MAX_BYTES: usize = 1 << 20;

/// Kinds that every version of every group has.
const EVERYWHERE: [&str; 1] = ["DeleteOptions"];

/// The table, read at the first body.
pub(super) static TABLE: LazyLock<Table> = LazyLock::new(|| {
    // What is compiled in and does not parse is found by the tests.
    let text = zstd::bulk::decompress(PACKED, TABLE_MAX_BYTES).unwrap_or_default();
    let written: Written = serde_json::from_slice(&text).unwrap_or_default();
    Table::new(written)
});

#[derive(Default, Deserialize)]
struct Written {
    objects: BTreeMap<String, usize>,
    schema: usize,
    messages: Vec<Vec<(u32, String, String, String)>>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Table {
    objects: BTreeMap<String, usize>,
    /// `JSONSchemaProps`, which stands behind three special types.
    pub(super) schema: usize,
    messages: Vec<Vec<Described>>,
}

/// One field of a message.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) number: u32,
    /// In JSON; empty for one that is inline.
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) shape: Shape,
    /// Its fields are those of the message around it.
    pub(super) inline: bool,
    /// JSON leaves it out when it is zero: there is no difference between zero and absent.
    pub(super) drop_zero: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    One,
    List,
    /// From texts.
    Map,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Bytes,
    Int,
    Bool,
    Double,
    Time,
    MicroTime,
    Duration,
    Quantity,
    IntOrString,
    /// JSON as it is, in a message of its own.
    Json,
    /// A list of texts as a message of its own, where it is the value of a map.
    Texts,
    SchemaOrBool,
    SchemaOrArray,
    SchemaOrTexts,
    Message(usize),
}

impl Kind {
    fn read(name: &str) -> Option<Kind> {
        Some(match name {
            "string" => Kind::Text,
            "bytes" => Kind::Bytes,
            "int" => Kind::Int,
            "bool" => Kind::Bool,
            "double" => Kind::Double,
            "time" => Kind::Time,
            "microTime" => Kind::MicroTime,
            "duration" => Kind::Duration,
            "quantity" => Kind::Quantity,
            "intOrString" => Kind::IntOrString,
            "json" => Kind::Json,
            "strings" => Kind::Texts,
            "schemaOrBool" => Kind::SchemaOrBool,
            "schemaOrArray" => Kind::SchemaOrArray,
            "schemaOrStrings" => Kind::SchemaOrTexts,
            index => Kind::Message(index.parse().ok()?),
        })
    }
}

impl Table {
    fn new(written: Written) -> Table {
        let messages = written.messages.into_iter().map(|fields| {
            let fields = fields.into_iter().filter_map(|(number, name, kind, flags)| {
                let has = |flag| flags.contains(flag);
                Some(Described {
                    number,
                    name,
                    kind: Kind::read(&kind)?,
                    shape: if has('m') {
                        Shape::Map
                    } else if has('r') {
                        Shape::List
                    } else {
                        Shape::One
                    },
                    inline: has('i'),
                    drop_zero: has('z'),
                })
            });
            fields.collect()
        });
        Table {
            objects: written.objects,
            schema: written.schema,
            messages: messages.collect(),
        }
    }

    /// The message of a kind.
    pub(super) fn object(&self, api_version: &str, kind: &str) -> Option<usize> {
        let version = if EVERYWHERE.contains(&kind) {
            "v1"
        } else {
            api_version
        };
        self.objects.get(&format!("{version}/{kind}")).copied()
    }

    /// The fields of a message, by number.
    pub(super) fn fields(&self, message: usize) -> &[Described] {
        self.messages.get(message).map_or(&[], Vec::as_slice)
    }

    /// Every kind, as `apiVersion/kind`.
    #[cfg(test)]
    pub(super) fn kinds(&self) -> impl Iterator<Item = &str> {
        self.objects.keys().map(String::as_str)
    }
}
