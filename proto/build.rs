//! Compiles the protobuf files with protox, so that no `protoc` has to be installed.

fn main() {
    let files = [
        "ledge/v1/api.proto",
        "ledge/v1/fence.proto",
        "ledge/v1/frame.proto",
        "ledge/v1/kube.proto",
        "ledge/v1/record.proto",
        "ledge/v1/session.proto",
        "ledge/v1/snapshot.proto",
        "ledge/v1/state.proto",
    ];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = match protox::compile(files, ["."]) {
        Ok(descriptors) => descriptors,
        Err(err) => panic!("cannot compile the protobuf files: {err}"),
    };
    let mut config = prost_build::Config::new();
    config.bytes([
        ".ledge.v1.ApiObject.json",
        ".ledge.v1.KubeObject.json",
        ".ledge.v1.KubeWrite.body",
        ".ledge.v1.KubeWriteResult.json",
        ".ledge.v1.Record.payload",
        ".ledge.v1.Entry.payload",
        ".ledge.v1.Snapshot.entries",
        ".ledge.v1.FrameHeader.chain",
        ".ledge.v1.FrameHeader.incarnation",
    ]);
    config.btree_map(["."]);
    // Compared and hashed by models of the protocol; prost leaves it out for messages with repeated messages.
    for message in [".ledge.v1.EdgeFence", ".ledge.v1.NodeFence"] {
        config.type_attribute(message, "#[derive(Eq, Hash)]");
    }
    if let Err(err) = config.compile_fds(descriptors) {
        panic!("cannot generate code for the protobuf files: {err}");
    }
}
