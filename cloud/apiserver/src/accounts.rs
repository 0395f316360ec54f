//! Service accounts: tokens made for them (the subresource `token`), and who a token's bearer is.
//! Source: `k8s.io/kubernetes/pkg/serviceaccount`, `pkg/registry/core/serviceaccount/storage/token.go`.

use std::sync::Arc;

use ledge_kubeapi::error::Cause;
use ledge_kubeapi::path::ResourcePath;
use ledge_kubeapi::resource::GroupResource;
use ledge_kubeapi::serve::request::{Request, User, service_account};
use ledge_kubeapi::store::Store;
use ledge_kubeapi::{ApiError, Environment, Object, ObjectKey, Reason, meta};
use serde_json::{Value, json};

use crate::environment::SystemEnvironment;
use crate::node;
use crate::tokens::{Bound, Claims, ISSUER, Named, TokenError, Tokens};

const GROUP: &str = "authentication.k8s.io";
/// Shortest, usual and longest life of a token, seconds.
const LIFE_S: (i64, i64, i64) = (600, 3600, 1 << 32);
/// Most audiences of a token.
const AUDIENCES_MAX: usize = 64;

/// See the module.
#[derive(Clone)]
pub struct Accounts {
    store: Arc<dyn Store>,
    tokens: Arc<Tokens>,
}

/// An object of the core group.
pub(crate) fn key(resource: &str, namespace: &str, name: &str) -> ObjectKey {
    ObjectKey {
        resource: GroupResource {
            group: String::new(),
            resource: resource.to_owned(),
        },
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

fn now_s() -> i64 {
    SystemEnvironment.now_us() / 1_000_000
}

impl Accounts {
    /// Over the objects in `store`.
    pub fn new(store: Arc<dyn Store>, tokens: Arc<Tokens>) -> Accounts {
        Accounts { store, tokens }
    }

    /// Who sends a request: whom his certificate names, else the bearer of the token in `authorization`; `None` when there is
    /// neither.
    ///
    /// # Errors
    /// `Unauthorized` for a token that is not believed.
    pub async fn sender(
        &self,
        certificate: Option<User>,
        authorization: &str,
    ) -> Result<Option<User>, ApiError> {
        if certificate.is_some() {
            return Ok(certificate);
        }
        let Some((scheme, token)) = authorization.trim().split_once(' ') else {
            return Ok(None);
        };
        if !scheme.eq_ignore_ascii_case("bearer") || token.trim().is_empty() {
            return Ok(None);
        }
        match self.bearer(token.trim(), &[]).await {
            Ok((user, _)) => Ok(Some(user)),
            Err(_) => Err(ApiError::new(Reason::Unauthorized, "Unauthorized")),
        }
    }

    /// Who has `token`, and for which of `audiences` (this API, when there are none) it is.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn bearer(&self, token: &str, audiences: &[String]) -> Result<(User, Vec<String>), TokenError> {
        let claims = self.tokens.read(token, now_s())?;
        let own = [ISSUER.to_owned()];
        let wanted = if audiences.is_empty() { &own } else { audiences };
        let both: Vec<String> = wanted
            .iter()
            .filter(|one| claims.aud.contains(one))
            .cloned()
            .collect();
        if both.is_empty() {
            return Err(TokenError::Worthless(format!(
                "token audiences {:?} is invalid for the target audiences {wanted:?}",
                claims.aud
            )));
        }
        let user = self.owner(&claims).await.map_err(TokenError::Worthless)?;
        Ok((user, both))
    }

    /// The service account of a token, when everything that the token is bound to is still there.
    async fn owner(&self, claims: &Claims) -> Result<User, String> {
        let bound = &claims.bound;
        let Named { name, uid } = &bound.serviceaccount;
        let account = key("serviceaccounts", &bound.namespace, name);
        let account = self.store.get(&account).await;
        let account = account.map_err(|error| error.to_string())?;
        if account.uid() != uid {
            return Err(format!(
                "service account UID ({}) does not match claim ({uid})",
                account.uid()
            ));
        }
        for (resource, namespace, named) in [
            ("secrets", bound.namespace.as_str(), &bound.secret),
            ("pods", bound.namespace.as_str(), &bound.pod),
            // Of a pod's token, the node is only told.
            ("nodes", "", if bound.pod.is_none() { &bound.node } else { &None }),
        ] {
            let Some(named) = named else { continue };
            let found = self.store.get(&key(resource, namespace, &named.name)).await;
            if found.is_ok_and(|found| found.uid() == named.uid) {
                continue;
            }
            return Err("service account token has been invalidated".to_owned());
        }
        let mut user = service_account(&bound.namespace, name);
        user.uid = uid.clone();
        let mut tell = |what: &str, value: &str| {
            if !value.is_empty() {
                let key = format!("authentication.kubernetes.io/{what}");
                user.extra.insert(key, vec![value.to_owned()]);
            }
        };
        tell("credential-id", &format!("JTI={}", claims.jti));
        for (what, named) in [("node", &bound.node), ("pod", &bound.pod)] {
            if let Some(named) = named {
                tell(&format!("{what}-name"), &named.name);
                tell(&format!("{what}-uid"), &named.uid);
            }
        }
        Ok(user)
    }

    /// Makes a token: `serviceaccounts/NAME/token`.
    ///
    /// # Errors
    /// As upstream's.
    pub async fn request(
        &self,
        request: &Request,
        path: &ResourcePath,
        body: Value,
    ) -> Result<Value, ApiError> {
        let namespace = path.namespace.as_deref().unwrap_or_default();
        let name = path.name.as_deref().unwrap_or_default();
        let account = self.store.get(&key("serviceaccounts", namespace, name)).await?;
        let spec = &body["spec"];
        let texts = spec["audiences"].as_array().into_iter().flatten();
        let mut audiences: Vec<String> = texts
            .filter_map(|text| text.as_str().map(str::to_owned))
            .take(AUDIENCES_MAX)
            .collect();
        if audiences.is_empty() {
            audiences.push(ISSUER.to_owned());
        }
        let life_s = spec["expirationSeconds"].as_i64().unwrap_or(LIFE_S.1);
        check_life(life_s)?;
        let reference = &spec["boundObjectRef"];
        let mut bound = self.bound(namespace, name, reference).await?;
        bound.serviceaccount.uid = account.uid().to_owned();
        node::restrict_token(&request.user, reference, &bound)?;
        let now = now_s();
        let claims = Claims {
            aud: audiences.clone(),
            exp: now + life_s,
            iat: now,
            iss: ISSUER.to_owned(),
            jti: SystemEnvironment.uid(),
            bound,
            nbf: now,
            sub: request_name(namespace, name),
        };
        let token = self.tokens.issue(&claims);
        let token = token.ok_or_else(|| ApiError::internal("the token cannot be signed"))?;
        Ok(json!({
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": account.uid(),
                "creationTimestamp": meta::time(now * 1_000_000),
            },
            "spec": {
                "audiences": audiences,
                "expirationSeconds": life_s,
                "boundObjectRef": reference,
            },
            "status": {
                "token": token,
                "expirationTimestamp": meta::time((now + life_s) * 1_000_000),
            },
        }))
    }

    /// What a token for the service account `name` is bound to.
    async fn bound(&self, namespace: &str, name: &str, reference: &Value) -> Result<Bound, ApiError> {
        let mut bound = Bound {
            namespace: namespace.to_owned(),
            serviceaccount: Named {
                name: name.to_owned(),
                uid: String::new(),
            },
            ..Bound::default()
        };
        if !reference.is_object() {
            return Ok(bound);
        }
        let text = |field: &str| reference[field].as_str().unwrap_or_default();
        let (resource, object_namespace) = match (text("apiVersion"), text("kind")) {
            ("" | "v1", "Pod") => ("pods", namespace),
            ("" | "v1", "Secret") => ("secrets", namespace),
            ("" | "v1", "Node") => ("nodes", ""),
            (version, kind) => {
                let gvk = match version.split_once('/') {
                    Some(_) => format!("{version}, Kind={kind}"),
                    None => format!("/{version}, Kind={kind}"),
                };
                return Err(ApiError::bad_request(format!(
                    "cannot bind token to object of type {gvk}"
                )));
            }
        };
        if text("name").is_empty() {
            return Err(ApiError::bad_request("Name parameter required."));
        }
        let object = self
            .store
            .get(&key(resource, object_namespace, text("name")))
            .await?;
        if !text("uid").is_empty() && text("uid") != object.uid() {
            let of = GroupResource {
                group: String::new(),
                resource: text("kind").to_owned(),
            };
            let why = format!(
                "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
                text("uid")
            );
            return Err(ApiError::conflict(&of, text("name"), &why));
        }
        match resource {
            "pods" => {
                let pod = object.value();
                let account = pod["spec"]["serviceAccountName"].as_str();
                if account.unwrap_or_default() != name {
                    return Err(ApiError::bad_request(format!(
                        "cannot bind token for serviceaccount \"{name}\" to pod running with different serviceaccount name."
                    )));
                }
                if let Some(node) = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
                    let found = self.store.get(&key("nodes", "", node)).await.ok();
                    bound.node = Some(Named {
                        name: node.to_owned(),
                        uid: found.map(|node| node.uid().to_owned()).unwrap_or_default(),
                    });
                }
                bound.pod = Some(named(&object));
            }
            "secrets" => bound.secret = Some(named(&object)),
            _ => bound.node = Some(named(&object)),
        }
        Ok(bound)
    }
}

fn named(object: &Object) -> Named {
    Named {
        name: object.key().name.clone(),
        uid: object.uid().to_owned(),
    }
}

fn request_name(namespace: &str, name: &str) -> String {
    service_account(namespace, name).name
}

fn check_life(life_s: i64) -> Result<(), ApiError> {
    let why = if life_s < LIFE_S.0 {
        "may not specify a duration less than 10 minutes"
    } else if life_s > LIFE_S.2 {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(());
    };
    let cause = Cause {
        reason: "FieldValueInvalid",
        message: format!("Invalid value: {life_s}: {why}"),
        field: "spec.expirationSeconds".to_owned(),
    };
    Err(ApiError::invalid(GROUP, "TokenRequest", "", vec![cause]))
}

impl std::fmt::Debug for Accounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accounts")
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}
