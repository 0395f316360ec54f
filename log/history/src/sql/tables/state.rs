//! Tables of what the log adds up to: one row per node, device or property, folded when the table is read.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use ledge_proto::fold::view::{self, Device, Latest, Twin};
use ledge_proto::fold::{FoldError, State};
use ledge_proto::ids::Scope;
use ledge_proto::retime::ClockNotes;
use ledge_proto::v1;

use crate::payload;
use crate::sql::columns::{Cell, Column, Type};

/// A node, or a device of it, or a property of the device: whatever the table is about.
#[derive(Debug)]
pub(crate) struct StateRow {
    pub(crate) node: Option<String>,
    said: Option<Latest<v1::NodeState>>,
    device: String,
    of: Arc<Device>,
    property: String,
    twin: Twin,
    gap: Option<Latest<v1::Gap>>,
    /// Who gave up what the gap is about.
    told_by: &'static str,
}

impl StateRow {
    /// Whether [`StateRow::retime`] may know better when something was.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.said.as_ref().is_some_and(Latest::is_doubtful)
            || self.of.is_doubtful()
            || self.twin.is_doubtful()
            || self.gap.as_ref().is_some_and(Latest::is_doubtful)
    }

    /// Corrects the times of what the node wrote before its clock was set.
    pub(crate) fn retime(&mut self, notes: &ClockNotes) {
        if let Some(said) = &mut self.said {
            said.retime(notes);
        }
        if self.of.is_doubtful() {
            Arc::make_mut(&mut self.of).retime(notes);
        }
        self.twin.retime(notes);
        // What the cloud gave up, it wrote down by a clock of its own.
        if self.told_by == BY_NODE
            && let Some(gap) = &mut self.gap
        {
            gap.retime(notes);
        }
    }

    fn spec(&self) -> Option<&v1::DeviceSpec> {
        self.of.spec.as_ref().map(|spec| &spec.content)
    }

    fn property_spec(&self) -> Option<&v1::DeviceProperty> {
        self.spec()?
            .properties
            .iter()
            .find(|property| property.name == self.property)
    }

    fn desired(&self) -> Option<&v1::value::Value> {
        payload::inner(self.twin.desired.as_ref()?.content.value.as_ref())
    }

    fn reported(&self) -> Option<&v1::value::Value> {
        payload::inner(self.twin.reported.as_ref()?.content.value.as_ref())
    }

    fn sample(&self) -> Option<&v1::value::Value> {
        payload::inner(self.twin.sample.as_ref()?.content.value.as_ref())
    }
}

/// Makes the rows of one scope.
type RowsOf = fn(&State, &Scope) -> Result<Vec<StateRow>, FoldError<Infallible>>;

/// A table whose rows come from folded state.
pub(crate) struct StateTable {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) columns: &'static [Column<StateRow>],
    pub(crate) rows: RowsOf,
}

fn nodes(state: &State, scope: &Scope) -> Result<Vec<StateRow>, FoldError<Infallible>> {
    let Some(node) = scope.node_name() else {
        return Ok(Vec::new());
    };
    Ok(vec![StateRow {
        node: Some(node.to_owned()),
        said: view::node(state, scope)?,
        device: String::new(),
        of: Arc::default(),
        property: String::new(),
        twin: Twin::default(),
        gap: None,
        told_by: "",
    }])
}

fn devices(state: &State, scope: &Scope) -> Result<Vec<StateRow>, FoldError<Infallible>> {
    let row = |(device, of): (String, Device)| StateRow {
        node: scope.node_name().map(str::to_owned),
        said: None,
        device,
        of: Arc::new(of),
        property: String::new(),
        twin: Twin::default(),
        gap: None,
        told_by: "",
    };
    Ok(view::devices(state, scope)?.into_iter().map(row).collect())
}

fn twins(state: &State, scope: &Scope) -> Result<Vec<StateRow>, FoldError<Infallible>> {
    let mut rows = Vec::new();
    for (device, mut of) in view::devices(state, scope)? {
        let mut twins: BTreeMap<String, Twin> = std::mem::take(&mut of.twins);
        // A property that is configured has a twin from the start, if an empty one.
        for property in of.spec.iter().flat_map(|spec| &spec.content.properties) {
            twins.entry(property.name.clone()).or_default();
        }
        let of = Arc::new(of);
        rows.extend(twins.into_iter().map(|(property, twin)| StateRow {
            node: scope.node_name().map(str::to_owned),
            said: None,
            device: device.clone(),
            of: of.clone(),
            property,
            twin,
            gap: None,
            told_by: "",
        }));
    }
    Ok(rows)
}

/// Who gave up what a gap is about.
const BY_NODE: &str = "node";

fn gaps(state: &State, scope: &Scope) -> Result<Vec<StateRow>, FoldError<Infallible>> {
    let row = |told_by, (_, gap): (String, Latest<v1::Gap>)| StateRow {
        node: scope.node_name().map(str::to_owned),
        said: None,
        device: String::new(),
        of: Arc::default(),
        property: String::new(),
        twin: Twin::default(),
        gap: Some(gap),
        told_by,
    };
    let by_node = view::gaps(state, scope)?.into_iter().map(|gap| row(BY_NODE, gap));
    let by_cloud = view::given_up(state, scope)?
        .into_iter()
        .map(|gap| row("cloud", gap));
    let mut gaps: Vec<StateRow> = by_node.chain(by_cloud).collect();
    gaps.sort_by_key(|row| {
        let gap = row.gap.as_ref().map(|gap| &gap.content);
        gap.map(|gap| (gap.lane, gap.epoch, gap.first_seq))
    });
    Ok(gaps)
}

const fn column(
    name: &'static str,
    of: Type,
    about: &'static str,
    cell: fn(&StateRow) -> Cell<'_>,
) -> Column<StateRow> {
    Column {
        name,
        of,
        about,
        cell,
    }
}

const NODE: Column<StateRow> = column("node", Type::Text, "the node", |row| {
    Cell::opt(row.node.as_deref(), Cell::text)
});
const DEVICE: Column<StateRow> = column("device", Type::Text, "namespace/name of the device", |row| {
    Cell::text(&row.device)
});
const NAMESPACE: Column<StateRow> = column("namespace", Type::Text, "the device's namespace", |row| {
    Cell::opt(row.device.split_once('/'), |(namespace, _)| Cell::text(namespace))
});
const NAME: Column<StateRow> = column("name", Type::Text, "the device's name", |row| {
    Cell::opt(row.device.split_once('/'), |(_, name)| Cell::text(name))
});

/// Trust in the clock of a record's time.
fn clock<T>(latest: &Latest<T>) -> Cell<'_> {
    Cell::text(match latest.retimed {
        true => "retimed",
        false => payload::clock_name(latest.clock),
    })
}

/// How many records a gap is about.
fn dropped(gap: &v1::Gap) -> u64 {
    match gap.count {
        0 => (gap.last_seq.saturating_add(1)).saturating_sub(gap.first_seq),
        count => count,
    }
}

/// The tables of state.
pub(crate) const STATE_TABLES: &[StateTable] = &[
    StateTable {
        name: "twins",
        about: "current state of every property: desired, reported, last sample, last write",
        rows: twins,
        columns: &[
            NODE,
            DEVICE,
            NAMESPACE,
            NAME,
            column("property", Type::Text, "property of the device", |row| {
                Cell::text(&row.property)
            }),
            column("desired", Type::Text, "what it should be, as text", |row| {
                Cell::opt(row.desired().map(payload::text), Cell::owned)
            }),
            column("desired_value", Type::Double, "the same as a number", |row| {
                Cell::opt(row.desired().and_then(payload::number), Cell::Double)
            }),
            column("desired_time", Type::Time, "when that was wished", |row| {
                Cell::opt(row.twin.desired.as_ref(), |it| Cell::Time(it.wall_us))
            }),
            column(
                "desired_seq",
                Type::Int,
                "its sequence number in the node's down stream",
                |row| Cell::opt(row.twin.desired.as_ref(), |it| Cell::count(it.position.seq.0)),
            ),
            column(
                "reported",
                Type::Text,
                "what the edge last reported, as text",
                |row| Cell::opt(row.reported().map(payload::text), Cell::owned),
            ),
            column("reported_value", Type::Double, "the same as a number", |row| {
                Cell::opt(row.reported().and_then(payload::number), Cell::Double)
            }),
            column("reported_time", Type::Time, "when that was reported", |row| {
                Cell::opt(row.twin.reported.as_ref(), |it| Cell::Time(it.wall_us))
            }),
            column(
                "reported_clock",
                Type::Text,
                "trust in that clock, or retimed",
                |row| Cell::opt(row.twin.reported.as_ref(), clock),
            ),
            column(
                "reported_seq",
                Type::Int,
                "its sequence number in the node's up.state stream",
                |row| Cell::opt(row.twin.reported.as_ref(), |it| Cell::count(it.position.seq.0)),
            ),
            column("sample", Type::Text, "latest sample, as text", |row| {
                Cell::opt(row.sample().map(payload::text), Cell::owned)
            }),
            column("sample_value", Type::Double, "the same as a number", |row| {
                Cell::opt(row.sample().and_then(payload::number), Cell::Double)
            }),
            column("sample_time", Type::Time, "when it was taken", |row| {
                Cell::opt(row.twin.sample.as_ref(), |it| Cell::Time(it.wall_us))
            }),
            column(
                "sample_clock",
                Type::Text,
                "trust in that clock, or retimed",
                |row| Cell::opt(row.twin.sample.as_ref(), clock),
            ),
            column("samples", Type::Int, "how many samples were folded", |row| {
                Cell::count(row.twin.sample.as_ref().map_or(0, |it| it.count))
            }),
            column(
                "outcome",
                Type::Text,
                "last write: applied, failed or unknown",
                |row| {
                    Cell::opt(row.twin.write_result.as_ref(), |it| {
                        Cell::text(payload::outcome_name(it.content.outcome()))
                    })
                },
            ),
            column("write_error", Type::Text, "why the last write failed", |row| {
                let error = row.twin.write_result.as_ref().map(|it| it.content.error.as_str());
                Cell::opt(error.filter(|error| !error.is_empty()), Cell::text)
            }),
            column("unit", Type::Text, "unit of the values", |row| {
                Cell::opt(row.property_spec(), |property| Cell::text(&property.unit))
            }),
            column("writable", Type::Bool, "whether it can be written", |row| {
                Cell::opt(row.property_spec(), |property| Cell::Bool(property.writable))
            }),
        ],
    },
    StateTable {
        name: "devices",
        about: "current state of every device",
        rows: devices,
        columns: &[
            NODE,
            DEVICE,
            NAMESPACE,
            NAME,
            column(
                "state",
                Type::Text,
                "online, offline, unhealthy or unknown",
                |row| Cell::opt(row.of.state.as_ref(), |it| Cell::text(&it.content.state)),
            ),
            column("message", Type::Text, "why, in words", |row| {
                Cell::opt(row.of.state.as_ref(), |it| Cell::text(&it.content.message))
            }),
            column("state_time", Type::Time, "since when", |row| {
                Cell::opt(row.of.state.as_ref(), |it| Cell::Time(it.wall_us))
            }),
            column(
                "state_clock",
                Type::Text,
                "trust in that clock, or retimed",
                |row| Cell::opt(row.of.state.as_ref(), clock),
            ),
            column(
                "configured",
                Type::Bool,
                "false: removed from the node, its last state remembered",
                |row| Cell::Bool(row.of.spec.is_some()),
            ),
            column("protocol", Type::Text, "for example modbus", |row| {
                Cell::opt(row.spec(), |spec| Cell::text(&spec.protocol))
            }),
            column("address", Type::Text, "how it is reached", |row| {
                Cell::opt(row.spec().and_then(payload::address), Cell::owned)
            }),
            column(
                "properties",
                Type::Int,
                "number of configured properties",
                |row| Cell::opt(row.spec(), |spec| Cell::count(spec.properties.len() as u64)),
            ),
            column(
                "resource_version",
                Type::Text,
                "generation of the manifest it came from",
                |row| Cell::opt(row.spec(), |spec| Cell::text(&spec.resource_version)),
            ),
        ],
    },
    StateTable {
        name: "gaps",
        about: "records that were dropped, and why; those that follow each other are one row",
        rows: gaps,
        columns: &[
            NODE,
            column("time", Type::Time, "when the last of them was dropped", |row| {
                Cell::opt(row.gap.as_ref(), |it| Cell::Time(it.wall_us))
            }),
            column(
                "dropped_stream",
                Type::Text,
                "stream the dropped records were in",
                |row| {
                    Cell::opt(row.gap.as_ref(), |it| {
                        Cell::owned(payload::stream_name(&it.content.scope, it.content.lane))
                    })
                },
            ),
            column("dropped_epoch", Type::Int, "their epoch", |row| {
                Cell::opt(row.gap.as_ref(), |it| Cell::Int(i64::from(it.content.epoch)))
            }),
            column("first_seq", Type::Int, "first record dropped", |row| {
                Cell::opt(row.gap.as_ref(), |it| Cell::count(it.content.first_seq))
            }),
            column("last_seq", Type::Int, "last record dropped", |row| {
                Cell::opt(row.gap.as_ref(), |it| Cell::count(it.content.last_seq))
            }),
            column("dropped", Type::Int, "how many records that is", |row| {
                Cell::opt(row.gap.as_ref(), |it| Cell::count(dropped(&it.content)))
            }),
            column(
                "reason",
                Type::Text,
                "why: DiskLimit, DiskFull, MaxAge, Corrupt and others",
                |row| Cell::opt(row.gap.as_ref(), |it| Cell::text(&it.content.reason)),
            ),
            column(
                "replaced_by",
                Type::Text,
                "what was kept of them: nothing, minute averages or last value",
                |row| {
                    Cell::opt(row.gap.as_ref(), |it| {
                        Cell::text(payload::replacement_name(it.content.replaced_by()))
                    })
                },
            ),
            column(
                "told_by",
                Type::Text,
                "who gave them up: the node, or the cloud, which had them from it",
                |row| Cell::text(row.told_by),
            ),
            column("clock", Type::Text, "trust in the clock of time", |row| {
                Cell::opt(row.gap.as_ref(), clock)
            }),
            column("epoch", Type::Int, "epoch of the last record about it", |row| {
                Cell::opt(row.gap.as_ref(), |it| Cell::Int(i64::from(it.position.epoch.0)))
            }),
            column(
                "seq",
                Type::Int,
                "its sequence number in up.data, of the cloud in local",
                |row| Cell::opt(row.gap.as_ref(), |it| Cell::count(it.position.seq.0)),
            ),
        ],
    },
    StateTable {
        name: "nodes",
        about: "every node the log knows",
        rows: nodes,
        columns: &[
            NODE,
            column("version", Type::Text, "version of its daemon", |row| {
                Cell::opt(row.said.as_ref(), |it| Cell::text(&it.content.version))
            }),
            column("boot_id", Type::Text, "which boot of its machine", |row| {
                Cell::opt(row.said.as_ref(), |it| Cell::text(&it.content.boot_id))
            }),
            column("time", Type::Time, "when it said so", |row| {
                Cell::opt(row.said.as_ref(), |it| Cell::Time(it.wall_us))
            }),
            column("clock", Type::Text, "trust in that clock, or retimed", |row| {
                Cell::opt(row.said.as_ref(), clock)
            }),
            column("labels", Type::Text, "its labels as JSON", |row| {
                Cell::opt(row.said.as_ref(), |it| {
                    let labels: BTreeMap<_, _> = it.content.labels.iter().collect();
                    Cell::owned(serde_json::to_string(&labels).unwrap_or_default())
                })
            }),
        ],
    },
];
