//! What a token says, and how it is made.

use granary_core::{Clock, Error, Kind, NamespaceName, Result};
use jsonwebtoken::{Algorithm, Header};
use serde::{Deserialize, Serialize};

use super::{GROUPS_MAX, LIFETIME_SECS_MAX, NAMESPACES_MAX, Pattern, SigningKey, TOKEN_BYTES_MAX, issuer};

/// Whom tokens are for.
pub(super) const AUDIENCE: &str = "granary-meta";
/// Longest id of a token, in bytes.
const ID_BYTES_MAX: usize = 64;

/// What a token lets its bearer do with the namespaces that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rights {
    ReadOnly,
    ReadWrite,
    /// Nothing but having the service make short-lived tokens for them, one namespace each.
    Delegate,
    /// Every namespace, and the service itself.
    Admin,
}

impl Rights {
    pub fn as_str(self) -> &'static str {
        match self {
            Rights::ReadOnly => "read-only",
            Rights::ReadWrite => "read-write",
            Rights::Delegate => "delegate",
            Rights::Admin => "admin",
        }
    }
}

/// What is to be granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub user: String,
    pub groups: Vec<String>,
    pub rights: Rights,
    /// These namespaces, whatever they are called, and no others; `None`: those of the user and the groups, or with
    /// [`Rights::Delegate`] all.
    pub namespaces: Option<Vec<Pattern>>,
    /// For how long, in seconds.
    pub lifetime_secs: u64,
}

/// The content of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The uuid of the volume that it is for.
    pub volume: String,
    pub user: String,
    pub groups: Vec<String>,
    pub rights: Rights,
    /// The only namespaces that it is for; `None`: those of the user and the groups, or with [`Rights::Delegate`] all.
    pub namespaces: Option<Vec<Pattern>>,
    /// The id of the token that it was delegated from: the service signed it.
    pub parent: Option<String>,
    /// Names it, for revoking it.
    pub id: String,
    /// Seconds since 1970.
    pub issued: u64,
    pub not_before: Option<u64>,
    pub expires: u64,
    /// Which key it says to be signed with.
    pub key: Option<String>,
}

/// As they stand in the token. Claims that are not known are left alone, as RFC 7519 wants it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Claims {
    pub iss: String,
    pub aud: String,
    pub sub: String,
    #[serde(default)]
    pub groups: Vec<String>,
    pub rights: Rights,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<Vec<Pattern>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub par: Option<String>,
    pub jti: String,
    pub iat: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    pub exp: u64,
}

impl Token {
    /// The one namespace that it is for, if it is for one alone.
    pub fn only(&self) -> Option<&NamespaceName> {
        match self.namespaces.as_deref()? {
            [one] => one.one(),
            _ => None,
        }
    }
}

impl Claims {
    /// What can be wrong with them whoever signed them.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let names = |kind: &str, name: &str| format!("{kind}/{name}").parse::<NamespaceName>().is_ok();
        if !names("user", &self.sub) {
            return Err("its user cannot be one");
        }
        if self.groups.len() > GROUPS_MAX {
            return Err("it has too many groups");
        }
        if !self.groups.iter().all(|group| names("group", group)) {
            return Err("one of its groups cannot be one");
        }
        let is_id = |id: &str| {
            let of_id = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            !id.is_empty() && id.len() <= ID_BYTES_MAX && id.bytes().all(of_id)
        };
        if !is_id(&self.jti) {
            return Err("its id cannot be one");
        }
        if let Some(namespaces) = &self.namespaces {
            if namespaces.is_empty() || namespaces.len() > NAMESPACES_MAX {
                return Err("it names no namespaces, or too many");
            }
            if self.rights == Rights::Admin {
                return Err("an administrator's token is for all namespaces");
            }
        }
        if let Some(parent) = &self.par {
            let one = self.namespaces.as_deref().is_some_and(|all| all.len() == 1 && all[0].one().is_some());
            if !is_id(parent) || !one || !matches!(self.rights, Rights::ReadOnly | Rights::ReadWrite) {
                return Err("it is delegated, and not for one namespace alone");
            }
        }
        if self.exp <= self.iat || self.exp - self.iat > LIFETIME_SECS_MAX {
            return Err("its life is too long, or ends before it begins");
        }
        Ok(())
    }

    pub(super) fn into_token(self, key: Option<String>) -> Token {
        let volume = self.iss.strip_prefix("granary:").unwrap_or(&self.iss).to_owned();
        Token {
            volume,
            user: self.sub,
            groups: self.groups,
            rights: self.rights,
            namespaces: self.namespaces,
            parent: self.par,
            id: self.jti,
            issued: self.iat,
            not_before: self.nbf,
            expires: self.exp,
            key,
        }
    }
}

/// Seconds since 1970.
pub(super) fn now(clock: &dyn Clock) -> u64 {
    clock.now().unix_ms() / 1000
}

/// Signs a token. `random`: 128 random bits, its id. `Invalid` names what of the grant cannot be.
pub fn issue(
    key: &SigningKey,
    volume: &str,
    grant: &Grant,
    clock: &dyn Clock,
    random: u128,
) -> Result<String> {
    if grant.lifetime_secs == 0 || grant.lifetime_secs > LIFETIME_SECS_MAX {
        let days = LIFETIME_SECS_MAX / 86_400;
        return Err(Error::new(
            Kind::Invalid,
            format!("a token lives for at least a second and at most {days} days; give another --ttl"),
        ));
    }
    let issued = now(clock);
    let claims = Claims {
        iss: issuer(volume),
        aud: AUDIENCE.to_owned(),
        sub: grant.user.clone(),
        groups: grant.groups.clone(),
        rights: grant.rights,
        namespaces: grant.namespaces.clone(),
        par: None,
        jti: format!("{random:032x}"),
        iat: issued,
        nbf: None,
        exp: issued + grant.lifetime_secs,
    };
    claims.check().map_err(|why| {
        Error::new(
            Kind::Invalid,
            format!(
                "cannot issue this token: {why}; users and groups are names as in user/alice and group/asr, at most \
                 {GROUPS_MAX} groups and {NAMESPACES_MAX} namespaces"
            ),
        )
    })?;
    let token = sign(key, &claims)?;
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Error::new(
            Kind::Invalid,
            format!(
                "cannot issue this token: it would have {} bytes, {TOKEN_BYTES_MAX} are allowed; give fewer groups or namespaces",
                token.len()
            ),
        ));
    }
    Ok(token)
}

pub(super) fn sign(key: &SigningKey, claims: &impl Serialize) -> Result<String> {
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some(key.public().id().to_owned());
    jsonwebtoken::encode(&header, claims, &key.key)
        .map_err(|e| Error::new(Kind::Bug, "cannot sign a token").with_source(e))
}

/// Reads a token without knowing whether it is genuine: for people who look at theirs.
pub fn inspect(token: &str) -> Result<Token> {
    let bad = |why: String| {
        Error::new(
            Kind::Invalid,
            format!("this is no token of Granary ({why}); `granary token issue` makes them"),
        )
    };
    if token.len() > TOKEN_BYTES_MAX {
        return Err(bad(format!("it has {} bytes, {TOKEN_BYTES_MAX} are allowed", token.len())));
    }
    let header = jsonwebtoken::decode_header(token).map_err(|e| bad(e.to_string()))?;
    let claims: Claims =
        jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(|e| bad(e.to_string()))?;
    if claims.aud != AUDIENCE {
        return Err(bad(format!("it is for {:?}", claims.aud)));
    }
    claims.check().map_err(|why| bad(why.to_owned()))?;
    Ok(claims.into_token(header.kid))
}
