//! MetaServer: the Kubernetes API of a node, from its projection.
