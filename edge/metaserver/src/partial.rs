//! Lists that do not show all there is: of pods and nodes, a node is told its own. Whoever lists others, too, is warned, so
//! that he does not take what is shown for everything.

use ledge_kubeapi::path::{Target, parse};
use ledge_kubeapi::selector::exact_match;
use ledge_kubeapi::serve::options::Options;
use ledge_kubeapi::serve::request::{Method, Request};

/// What the client of `node` is warned of, if the request lists what only the cloud has whole.
pub(crate) fn warning(request: &Request, node: &str) -> Option<String> {
    let Some(Target::Resource(path)) = parse(&request.path) else {
        return None;
    };
    let list = matches!(request.method, Method::Get | Method::Head) && path.name.is_none();
    if !list || !path.gvr.group.is_empty() {
        return None;
    }
    let options = Options::parse(&request.query).ok()?;
    // A watch goes on where a list ended: its client was warned.
    if options.watch || exact_match(&options.fields, "metadata.name").is_some() {
        return None;
    }
    match path.gvr.resource.as_str() {
        // Those of another node are asked for.
        "pods" if exact_match(&options.fields, "spec.nodeName").is_some() => None,
        "pods" => Some(format!(
            "node {node} shows its own pods and those that somebody fetched here: pods of other nodes may be missing"
        )),
        "nodes" => Some(format!(
            "node {node} shows itself and nodes that somebody fetched here: others may be missing"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ledge_kubeapi::serve::transport;

    use super::*;

    fn warned(path: &str, query: &str) -> bool {
        let request = Request {
            method: Method::Get,
            path: path.to_owned(),
            query: query.to_owned(),
            headers: Default::default(),
            body: Default::default(),
            user: transport::anonymous(),
        };
        warning(&request, "edge-1").is_some()
    }

    #[test]
    fn lists_of_more_than_is_here_are_told() {
        assert!(warned("/api/v1/pods", ""));
        assert!(warned("/api/v1/pods", "limit=500&labelSelector=app%3Dweb"));
        assert!(warned("/api/v1/namespaces/default/pods", ""));
        assert!(warned("/api/v1/nodes", ""));
        for (path, query) in [
            ("/api/v1/pods", "fieldSelector=spec.nodeName%3Dedge-1"),
            ("/api/v1/pods", "fieldSelector=spec.nodeName%3Dedge-2"),
            ("/api/v1/pods", "watch=true"),
            (
                "/api/v1/namespaces/default/pods",
                "fieldSelector=metadata.name%3Dweb",
            ),
            ("/api/v1/namespaces/default/pods/web", ""),
            ("/api/v1/services", ""),
            ("/apis/metrics.k8s.io/v1beta1/pods", ""),
            ("/version", ""),
        ] {
            assert!(!warned(path, query), "{path}?{query}");
        }
    }
}
