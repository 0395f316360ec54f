//! Service account tokens: JSON Web Tokens (RFC 7519) signed with ES256 (RFC 7518, section 3.4) by a key of the API's own,
//! with the claims that a Kubernetes API server makes.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};

/// Who issues tokens, and whom they are for when nobody else is named.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Longest token that is looked at, bytes. One with every claim and long names has about 2 KiB.
const TOKEN_MAX_BYTES: usize = 16 * 1024;
/// Clocks may differ by so much, seconds, as upstream allows.
const LEEWAY_S: i64 = 60;
/// The public key before its two coordinates, as SubjectPublicKeyInfo (RFC 5480): its name is made from the whole.
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Whom it is for.
    pub aud: Vec<String>,
    /// Seconds since 1970, after which it is worth nothing.
    pub exp: i64,
    /// When it was issued, seconds since 1970.
    pub iat: i64,
    /// Who issued it.
    pub iss: String,
    /// Its own name.
    pub jti: String,
    /// What it is about.
    #[serde(rename = "kubernetes.io")]
    pub bound: Bound,
    /// Seconds since 1970, before which it is worth nothing.
    pub nbf: i64,
    /// The user's name.
    pub sub: String,
}

/// The objects that a token needs: it is worth nothing when one of them is gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Of all of them but the node.
    pub namespace: String,
    /// For what it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Named>,
    /// For what it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Named>,
    /// For what it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Named>,
    /// Whose token it is.
    pub serviceaccount: Named,
}

/// One object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`; empty when only the name is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

/// Why a token is not believed, for whoever asks in a TokenReview.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It was not issued here, or was changed.
    #[error("invalid bearer token")]
    Foreign,
    /// It was issued here and is worth nothing.
    #[error("[invalid bearer token, {0}]")]
    Worthless(String),
}

/// A key that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("not a P-256 key in PKCS #8: {0}")]
pub struct KeyError(String);

/// Issues tokens and checks them.
pub struct Tokens {
    key: EcdsaKeyPair,
    kid: String,
    random: SystemRandom,
}

impl Tokens {
    /// With a key of the curve P-256 in PKCS #8.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn new(pkcs8: &[u8]) -> Result<Tokens, KeyError> {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random)
            .map_err(|error| KeyError(error.to_string()))?;
        let info = [&P256_PREFIX[..], key.public_key().as_ref()].concat();
        let kid = URL_SAFE_NO_PAD.encode(digest(&SHA256, &info));
        Ok(Tokens { key, kid, random })
    }

    /// The token that says `claims`; `None` when the system has no random numbers.
    pub fn issue(&self, claims: &Claims) -> Option<String> {
        let header = Header {
            alg: "ES256".to_owned(),
            kid: self.kid.clone(),
        };
        let part = |json: Vec<u8>| URL_SAFE_NO_PAD.encode(json);
        let header = part(serde_json::to_vec(&header).ok()?);
        let signed = format!("{header}.{}", part(serde_json::to_vec(claims).ok()?));
        let signature = self.key.sign(&self.random, signed.as_bytes()).ok()?;
        Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// What a token says, when it was issued here and is valid at `now_s` (seconds since 1970).
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn read(&self, token: &str, now_s: i64) -> Result<Claims, TokenError> {
        let claims = self.signed(token).ok_or(TokenError::Foreign)?;
        let why = if claims.exp.saturating_add(LEEWAY_S) < now_s {
            "service account token has expired"
        } else if claims.nbf.saturating_sub(LEEWAY_S) > now_s {
            "service account token is not valid yet"
        } else {
            return Ok(claims);
        };
        Err(TokenError::Worthless(why.to_owned()))
    }

    /// What a token says, when it was issued here.
    fn signed(&self, token: &str) -> Option<Claims> {
        if token.len() > TOKEN_MAX_BYTES {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        // The algorithm is ours to choose, never the token's: a header that names another is one of somebody else's.
        let header: Header = serde_json::from_slice(&decode(header)?).ok()?;
        if header.alg != "ES256" || header.kid != self.kid {
            return None;
        }
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key());
        public.verify(signed.as_bytes(), &decode(signature)?).ok()?;
        let claims: Claims = serde_json::from_slice(&decode(claims)?).ok()?;
        (claims.iss == ISSUER).then_some(claims)
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens")
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        let key = rcgen::KeyPair::generate().unwrap();
        Tokens::new(key.serialized_der()).unwrap()
    }

    fn claims() -> Claims {
        Claims {
            aud: vec![ISSUER.to_owned()],
            exp: 5000,
            iat: 1000,
            iss: ISSUER.to_owned(),
            jti: "j".to_owned(),
            bound: Bound::default(),
            nbf: 1000,
            sub: "system:serviceaccount:a:b".to_owned(),
        }
    }

    #[test]
    fn what_was_issued_is_read_while_it_is_valid() {
        let tokens = tokens();
        let token = tokens.issue(&claims()).unwrap();
        assert_eq!(tokens.read(&token, 2000).unwrap(), claims());
        assert_eq!(tokens.read(&token, 5060).unwrap(), claims());
        let late = tokens.read(&token, 5061).unwrap_err();
        assert_eq!(
            late.to_string(),
            "[invalid bearer token, service account token has expired]"
        );
        assert!(matches!(tokens.read(&token, 939), Err(TokenError::Worthless(_))));
    }

    #[test]
    fn what_others_issued_is_not() {
        let ours = tokens();
        let token = tokens().issue(&claims()).unwrap();
        assert_eq!(ours.read(&token, 2000), Err(TokenError::Foreign));
        let other_issuer = Claims {
            iss: "https://example.com".to_owned(),
            ..claims()
        };
        assert_eq!(
            ours.read(&ours.issue(&other_issuer).unwrap(), 2000),
            Err(TokenError::Foreign)
        );
        let huge = "a".repeat(TOKEN_MAX_BYTES + 1);
        for text in ["", ".", "..", "a.b.c", "é.é.é", &huge] {
            assert_eq!(ours.read(text, 2000), Err(TokenError::Foreign));
        }
    }

    #[test]
    fn no_character_of_a_token_can_be_changed() {
        let tokens = tokens();
        let token = tokens.issue(&claims()).unwrap();
        for at in 0..token.len() {
            let mut other = token.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            assert_eq!(tokens.read(&other, 2000), Err(TokenError::Foreign), "at {at}");
        }
        // Without a signature, under the name of another algorithm.
        let (signed, _) = token.rsplit_once('.').unwrap();
        let (_, claims) = signed.split_once('.').unwrap();
        let none = URL_SAFE_NO_PAD.encode(br#"{"alg":"none"}"#);
        assert_eq!(
            tokens.read(&format!("{none}.{claims}."), 2000),
            Err(TokenError::Foreign)
        );
    }
}
