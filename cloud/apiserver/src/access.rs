//! Who may do what: members of `system:masters` everything, nodes what concerns them, and everybody what roles grant.

use std::sync::Arc;

use async_trait::async_trait;
use ledge_kubeapi::ApiError;
use ledge_kubeapi::serve::request::User;
use ledge_kubeapi::serve::{Attributes, Authorizer};
use ledge_kubeapi::store::Store;

use crate::node::{self, NodeAuthorizer};
use crate::rbac::{MASTERS, Question, Rbac};

/// Whether something is allowed, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is.
    pub allowed: bool,
    /// In upstream's words; may be empty.
    pub reason: String,
}

impl Decision {
    /// Allowed, without a word.
    pub fn yes() -> Decision {
        Decision::plain(true)
    }

    /// Not allowed.
    pub fn no(reason: &str) -> Decision {
        Decision {
            allowed: false,
            reason: reason.to_owned(),
        }
    }

    /// Without a word.
    pub fn plain(allowed: bool) -> Decision {
        Decision {
            allowed,
            reason: String::new(),
        }
    }
}

/// See the module.
pub struct Access {
    node: NodeAuthorizer,
    rbac: Rbac,
}

impl Access {
    /// By the objects in `store`.
    pub fn new(store: Arc<dyn Store>) -> Access {
        Access {
            node: NodeAuthorizer::new(Arc::clone(&store)),
            rbac: Rbac::new(store),
        }
    }

    /// What roles grant.
    pub fn rbac(&self) -> &Rbac {
        &self.rbac
    }

    /// Whether `user` may do what is asked.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn decide(&self, user: &User, question: &Question<'_>) -> Result<Decision, ApiError> {
        if user.groups.iter().any(|group| group == MASTERS) {
            return Ok(Decision::yes());
        }
        let mut reason = String::new();
        if let Some(node) = node::of(user) {
            let decision = self.node.decide(node, question).await?;
            if decision.allowed {
                return Ok(decision);
            }
            reason = decision.reason;
        }
        Ok(match self.rbac.granted(user, question).await? {
            Some(granted) => Decision {
                allowed: true,
                reason: granted,
            },
            None => Decision::no(&reason),
        })
    }
}

#[async_trait]
impl Authorizer for Access {
    async fn authorize(&self, attributes: &Attributes) -> Result<(), String> {
        let question = match &attributes.resource {
            Some(path) => Question {
                verb: attributes.verb,
                group: &path.gvr.group,
                resource: match &path.subresource {
                    Some(sub) => format!("{}/{sub}", path.gvr.resource),
                    None => path.gvr.resource.clone(),
                },
                name: path.name.as_deref().unwrap_or_default(),
                namespace: path.namespace.as_deref().unwrap_or_default(),
                path: None,
                fields: &attributes.fields,
            },
            None => Question {
                verb: attributes.verb,
                path: Some(&attributes.path),
                ..Question::default()
            },
        };
        match self.decide(&attributes.user, &question).await {
            Ok(decision) if decision.allowed => Ok(()),
            Ok(decision) if decision.reason.is_empty() => Err(attributes.denied()),
            Ok(decision) => Err(format!("{}: {}", attributes.denied(), decision.reason)),
            Err(error) => Err(format!("{}: {error}", attributes.denied())),
        }
    }
}
