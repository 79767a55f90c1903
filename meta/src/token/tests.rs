//! Every way in which a token may be no token.

use std::sync::Arc;
use std::time::Duration;

use granary_core::{Kind, NamespaceId, SessionId, TestClock};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::verify::Refusal;
use super::*;

const VOLUME: &str = "0123456789abcdef0123456789abcdef";

fn key(n: u8) -> SigningKey {
    SigningKey::from_seed(&[n; 32]).unwrap()
}

fn grant() -> Grant {
    Grant {
        user: "alice".into(),
        groups: vec!["asr".into(), "nlp".into()],
        rights: Rights::ReadWrite,
        namespaces: None,
        lifetime_secs: 3600,
    }
}

struct World {
    clock: Arc<TestClock>,
    verifier: Verifier,
}

fn world() -> World {
    let clock = Arc::new(TestClock::default());
    let keys = vec![key(1).public().clone(), key(2).public().clone()];
    let revoked = Arc::new(|id: &str| id == format!("{:032x}", 13));
    World { verifier: Verifier::new(VOLUME, keys, clock.clone(), revoked).unwrap(), clock }
}

impl World {
    fn issue(&self, signer: &SigningKey, random: u128) -> String {
        issue(signer, VOLUME, &grant(), &*self.clock, random).unwrap()
    }

    /// Claims as a genuine token has them, changed.
    fn claims(&self, change: impl FnOnce(&mut Value)) -> Value {
        let mut claims = json!({
            "iss": format!("granary:{VOLUME}"), "aud": "granary-meta", "sub": "alice", "groups": ["asr"],
            "rights": "read-write", "jti": "7", "iat": 1_000_000, "exp": 1_003_600,
        });
        change(&mut claims);
        claims
    }

    fn signed(&self, change: impl FnOnce(&mut Value)) -> String {
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &self.claims(change), &key(1).key).unwrap()
    }

    #[track_caller]
    fn refused(&self, token: &str, why: Refusal) {
        assert_eq!(self.verifier.verify(token).unwrap_err(), why);
        let e = self.verifier.check(token).unwrap_err();
        assert_eq!(e.kind(), Kind::Denied);
        let uniform = self.verifier.check("").unwrap_err();
        assert_eq!(e.to_string(), uniform.to_string(), "the reason is told");
    }
}

/// For tokens that the library refuses to make.
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0u32, |bits, at| bits << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
        for at in 0..=group.len() {
            out.push(char::from(ALPHABET[(bits >> (18 - 6 * at) & 63) as usize]));
        }
    }
    out
}

#[test]
fn a_genuine_token_says_who_and_what() {
    let w = world();
    for signer in [key(1), key(2)] {
        let token = w.verifier.check(&w.issue(&signer, 5)).unwrap();
        assert_eq!(
            token,
            Token {
                volume: VOLUME.into(),
                user: "alice".into(),
                groups: vec!["asr".into(), "nlp".into()],
                rights: Rights::ReadWrite,
                namespaces: None,
                parent: None,
                id: format!("{:032x}", 5),
                issued: 1_000_000,
                not_before: None,
                expires: 1_003_600,
                key: Some(signer.public().id().to_owned()),
            }
        );
        assert_eq!(inspect(&w.issue(&signer, 5)).unwrap(), token);
    }
    // Without a key's name all trusted ones are tried.
    assert_eq!(w.verifier.check(&w.signed(|_| ())).unwrap().user, "alice");
}

#[test]
fn keys_survive_their_files_and_openssl_s() {
    let made = key(9);
    let (private, public) = (made.to_pem(), made.public().to_pem());
    assert_eq!(SigningKey::from_pem(&private).unwrap().public().as_bytes(), made.public().as_bytes());
    assert_eq!(PublicKey::from_pem(&public).unwrap().id(), made.public().id());
    let commented = format!("volume {VOLUME}\n{private}");
    assert_eq!(SigningKey::from_pem(&commented).unwrap().public().id(), made.public().id());
    // RFC 8410, section 10.1 and 10.3.
    let rfc = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
    assert_eq!(PublicKey::from_pem(rfc).unwrap().to_pem(), rfc);
    let rfc = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
    let theirs = SigningKey::from_pem(rfc).unwrap();
    assert_eq!(theirs.to_pem(), rfc);
    assert_eq!(theirs.public().as_bytes()[..4], [0x19, 0xbf, 0x44, 0x09]);
    assert!(!format!("{made:?}").contains("CQkJ"), "the secret is shown");
}

#[test]
fn files_that_are_no_keys_say_what_is_wrong() {
    let made = key(9);
    let e = SigningKey::from_pem(&made.public().to_pem()).unwrap_err();
    assert!(e.to_string().contains("public part"), "{e}");
    let e = PublicKey::from_pem(&made.to_pem()).unwrap_err();
    assert!(e.to_string().contains(".pub"), "{e}");
    for text in
        ["", "hello", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", &"x".repeat(1 << 20)]
    {
        assert_eq!(SigningKey::from_pem(text).unwrap_err().kind(), Kind::Invalid);
        assert_eq!(PublicKey::from_pem(text).unwrap_err().kind(), Kind::Invalid);
    }
    assert!(PublicKey::from_bytes(&[0; 31]).is_err());
}

#[test]
fn what_cannot_be_granted_is_not_signed() {
    let clock = TestClock::default();
    let long = (0..200).map(|n| format!("g{n}")).collect();
    for bad in [
        Grant { user: "../root".into(), ..grant() },
        Grant { user: String::new(), ..grant() },
        Grant { user: "a/b".into(), ..grant() },
        Grant { groups: vec!["a b".into()], ..grant() },
        Grant { groups: long, ..grant() },
        Grant { namespaces: Some(vec![]), ..grant() },
        Grant { namespaces: Some(vec!["user/x".parse().unwrap(); NAMESPACES_MAX + 1]), ..grant() },
        Grant { namespaces: Some(vec!["*/*".parse().unwrap()]), rights: Rights::Admin, ..grant() },
        Grant { lifetime_secs: 0, ..grant() },
        Grant { lifetime_secs: LIFETIME_SECS_MAX + 1, ..grant() },
    ] {
        let e = issue(&key(1), VOLUME, &bad, &clock, 1).unwrap_err();
        assert_eq!(e.kind(), Kind::Invalid, "{bad:?}");
    }
    let wide = (0..GROUPS_MAX).map(|n| format!("{n:058}")).collect();
    let e = issue(&key(1), VOLUME, &Grant { groups: wide, ..grant() }, &clock, 1).unwrap_err();
    assert!(e.to_string().contains("fewer groups"), "{e}");
}

#[test]
fn another_key_and_changed_tokens_are_refused() {
    let w = world();
    w.refused(&w.issue(&key(3), 1), Refusal::Signature);
    // Another key under a trusted key's name.
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some(key(1).public().id().to_owned());
    let forged = jsonwebtoken::encode(&header, &w.claims(|_| ()), &key(3).key).unwrap();
    w.refused(&forged, Refusal::Signature);
    // Another's claims under a genuine signature.
    let (alice, root) = (w.signed(|_| ()), w.signed(|c| c["rights"] = json!("admin")));
    let (alice, root): (Vec<_>, Vec<_>) = (alice.split('.').collect(), root.split('.').collect());
    w.refused(&[alice[0], root[1], alice[2]].join("."), Refusal::Signature);
    w.refused(&[alice[0], alice[1], root[2]].join("."), Refusal::Signature);
    w.refused(&[alice[0], alice[1], ""].join("."), Refusal::Signature);
}

#[test]
fn the_header_chooses_nothing() {
    let w = world();
    let payload = base64url(w.claims(|_| ()).to_string().as_bytes());
    for alg in ["none", "None", "NONE", "", "HS256", "HS512", "RS256", "ES256", "PS384"] {
        let head = base64url(json!({"alg": alg, "typ": "JWT"}).to_string().as_bytes());
        for signature in ["", "AAAA"] {
            w.refused(&format!("{head}.{payload}.{signature}"), Refusal::Algorithm);
        }
    }
    // The public key as the secret of a MAC: in all forms an attacker has it.
    let public = key(1).public().clone();
    for secret in [&public.as_bytes()[..], public.to_pem().as_bytes(), public.to_pem().trim_end().as_bytes()]
    {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let mac = EncodingKey::from_secret(secret);
            let forged = jsonwebtoken::encode(&Header::new(algorithm), &w.claims(|_| ()), &mac).unwrap();
            w.refused(&forged, Refusal::Algorithm);
        }
    }
    // A key of its own in the header, and places to fetch one from.
    let mallory = key(3);
    let mut header = Header::new(Algorithm::EdDSA);
    header.jwk = Some(jsonwebtoken::jwk::Jwk::from_encoding_key(&mallory.key, Algorithm::EdDSA).unwrap());
    header.jku = Some("http://127.0.0.1:1/keys".into());
    header.x5u = Some("file:///etc/passwd".into());
    header.kid = Some("../../etc/passwd".into());
    let forged = jsonwebtoken::encode(&header, &w.claims(|_| ()), &mallory.key).unwrap();
    w.refused(&forged, Refusal::Signature);
    // A genuine signature whose meaning the header changes.
    let mut header = Header::new(Algorithm::EdDSA);
    header.crit = Some(vec!["b64".into()]);
    let odd = jsonwebtoken::encode(&header, &w.claims(|_| ()), &key(1).key).unwrap();
    w.refused(&odd, Refusal::Algorithm);
}

#[test]
fn time_counts_within_the_skew() {
    let w = world();
    let token = w.issue(&key(1), 1);
    w.clock.advance(Duration::from_secs(3600 + CLOCK_SKEW_SECS - 1));
    w.verifier.check(&token).unwrap();
    w.clock.advance(Duration::from_secs(1));
    w.refused(&token, Refusal::Expired);

    let w = world();
    let ahead = |by: u64| w.signed(move |c| (c["iat"], c["exp"]) = (json!(1_000_000 + by), json!(1_009_999)));
    w.verifier.check(&ahead(CLOCK_SKEW_SECS)).unwrap();
    w.refused(&ahead(CLOCK_SKEW_SECS + 1), Refusal::NotYet);
    let later = w.signed(|c| c["nbf"] = json!(1_000_100));
    w.refused(&later, Refusal::NotYet);
    w.clock.advance(Duration::from_secs(70));
    w.verifier.check(&later).unwrap();
}

#[test]
fn claims_that_are_missing_wrong_or_for_others_are_refused() {
    let w = world();
    for claim in ["iss", "aud", "sub", "rights", "jti", "iat", "exp"] {
        w.refused(&w.signed(|c| drop(c.as_object_mut().unwrap().remove(claim))), Refusal::Malformed);
    }
    for (claim, value) in [
        ("exp", json!("1003600")),
        ("exp", json!(1_003_600.5)),
        ("exp", json!(-1)),
        ("exp", json!(1e30)),
        ("exp", Value::Null),
        ("rights", json!("root")),
        ("rights", json!("Admin")),
        ("rights", json!(["admin"])),
        ("sub", json!(["alice", "root"])),
        ("groups", json!("asr")),
        ("aud", json!(["granary-meta", "granary-peer"])),
    ] {
        w.refused(&w.signed(|c| c[claim] = value), Refusal::Malformed);
    }
    let wrong = |change: &dyn Fn(&mut Value)| w.verifier.verify(&w.signed(|c| change(c))).unwrap_err();
    assert_eq!(wrong(&|c| c["aud"] = json!("granary-peer")), Refusal::Audience);
    assert_eq!(wrong(&|c| c["aud"] = json!("")), Refusal::Audience);
    assert_eq!(
        wrong(&|c| c["iss"] = json!(format!("granary:{}", VOLUME.replace('0', "1")))),
        Refusal::Volume
    );
    assert_eq!(wrong(&|c| c["iss"] = json!(VOLUME)), Refusal::Volume);
    for (claim, value) in [
        ("sub", json!("")),
        ("sub", json!("../alice")),
        ("sub", json!("alice\0")),
        ("sub", json!("alice/../bob")),
        ("sub", json!("a".repeat(100))),
        ("groups", json!(["asr", "../x"])),
        ("groups", json!(vec!["g"; GROUPS_MAX + 1])),
        ("jti", json!("")),
        ("jti", json!("a\nb")),
        ("jti", json!("a".repeat(65))),
        ("exp", json!(1_000_000)),
        ("exp", json!(1_000_000 + LIFETIME_SECS_MAX + 1)),
        ("exp", json!(u64::MAX)),
    ] {
        let token = w.signed(|c| c[claim] = value.clone());
        assert!(matches!(w.verifier.verify(&token), Err(Refusal::Claims(_))), "{claim} {value}");
    }
}

#[test]
fn revoked_huge_and_cut_tokens_are_refused() {
    let w = world();
    w.refused(&w.issue(&key(1), 13), Refusal::Revoked);
    w.refused(&w.signed(|c| c["pad"] = json!("x".repeat(TOKEN_BYTES_MAX))), Refusal::TooLong);
    w.refused(&"a.".repeat(1 << 20), Refusal::TooLong);
    let token = w.issue(&key(1), 1);
    for end in 0..token.len() {
        assert!(w.verifier.verify(&token[..end]).is_err(), "cut at {end}");
    }
    for odd in [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "null.null.",
        &format!("{token}.x"),
        &format!("{token}="),
        &format!(" {token}"),
    ] {
        assert!(w.verifier.verify(odd).is_err(), "{odd:?}");
    }
}

#[test]
fn keys_are_bounded() {
    let clock = Arc::new(TestClock::default());
    for n in [0, KEYS_MAX + 1] {
        let keys = vec![key(1).public().clone(); n];
        assert!(Verifier::new(VOLUME, keys, clock.clone(), Arc::new(|_| false)).is_err());
    }
}

#[test]
fn tickets_are_for_one_namespace_and_some_minutes() {
    let clock = Arc::new(TestClock::default());
    let signer = TicketSigner::new(VOLUME, key(5), clock.clone());
    let verifier =
        |volume: &str, n: u8| TicketVerifier::new(volume, key(n).public().as_bytes(), clock.clone()).unwrap();
    let ticket = signer.ticket(NamespaceId(7), SessionId(0xabc)).unwrap();
    let good = verifier(VOLUME, 5);
    assert_eq!(good.check(&ticket).unwrap(), NamespaceId(7));
    assert_eq!(signer.public().as_bytes(), key(5).public().as_bytes());
    assert_eq!(verifier(VOLUME, 6).verify(&ticket).unwrap_err(), Refusal::Signature);
    let other = VOLUME.replace('0', "1");
    assert_eq!(verifier(&other, 5).verify(&ticket).unwrap_err(), Refusal::Volume);
    // A user's token is no ticket, and a ticket is no token, even under one key.
    let token = issue(&key(5), VOLUME, &grant(), &*clock, 1).unwrap();
    assert_eq!(good.verify(&token).unwrap_err(), Refusal::Malformed);
    let keys = vec![key(5).public().clone()];
    let users = Verifier::new(VOLUME, keys, clock.clone(), Arc::new(|_| false)).unwrap();
    assert_eq!(users.verify(&ticket).unwrap_err(), Refusal::Malformed);
    // Longer than the service gives.
    let long = json!({"iss": format!("granary:{VOLUME}"), "aud": "granary-peer", "sub": "0", "ns": 7,
        "iat": 1_000_000, "exp": 1_000_000 + TICKET_SECS + 1});
    let long = jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &long, &key(5).key).unwrap();
    assert!(matches!(good.verify(&long).unwrap_err(), Refusal::Claims(_)));
    clock.advance(Duration::from_secs(TICKET_SECS + CLOCK_SKEW_SECS));
    assert_eq!(good.verify(&ticket).unwrap_err(), Refusal::Expired);
    let e = good.check(&ticket).unwrap_err();
    assert_eq!(e.to_string(), good.check("x").unwrap_err().to_string());
}

proptest! {
    /// No single changed character leaves a token that counts: neither header, claims nor signature.
    #[test]
    fn no_flipped_character_counts(at in 0usize..400, to in proptest::char::any()) {
        let w = world();
        let mut token: Vec<char> = w.issue(&key(1), 1).chars().collect();
        let at = at % token.len();
        prop_assume!(token[at] != to);
        token[at] = to;
        prop_assert!(w.verifier.verify(&token.into_iter().collect::<String>()).is_err());
    }

    #[test]
    fn noise_is_refused_without_a_panic(noise in "\\PC{0,200}") {
        let w = world();
        prop_assert!(w.verifier.verify(&noise).is_err());
        prop_assert!(inspect(&noise).is_err());
        prop_assert!(SigningKey::from_pem(&noise).is_err() && PublicKey::from_pem(&noise).is_err());
    }
}

fn wanted(namespace: &str, lifetime_secs: u64) -> Delegation {
    Delegation { namespace: namespace.parse().unwrap(), read_only: true, lifetime_secs }
}

const PARENT: Parent<'_> = Parent { user: "csi", id: "parent-1", expires: 1_010_000 };

fn delegator(w: &World) -> Delegator {
    Delegator::new(VOLUME, key(5), w.clock.clone())
}

/// A world whose service signs with key 5, and where token `parent-1` is revoked when it is said to be.
fn delegating(revoked: &'static str) -> World {
    let clock = Arc::new(TestClock::default());
    let verifier = Verifier::new(
        VOLUME,
        vec![key(1).public().clone()],
        clock.clone(),
        Arc::new(move |id| id == revoked),
    );
    World { verifier: verifier.unwrap().delegating(key(5).public().clone()), clock }
}

#[test]
fn a_delegated_token_is_for_one_namespace_and_names_its_parent() {
    let w = delegating("");
    let made = delegator(&w).delegate(PARENT, &wanted("group/asr", 600), 9).unwrap();
    let token = w.verifier.check(&made.token).unwrap();
    assert_eq!((token.only().unwrap().as_str(), token.rights), ("group/asr", Rights::ReadOnly));
    assert_eq!(
        (token.parent.as_deref(), token.user.as_str(), token.groups.len()),
        (Some("parent-1"), "csi", 0)
    );
    assert_eq!((token.id.as_str(), token.expires, made.expires), (made.id.as_str(), 1_000_600, 1_000_600));
    assert!(!format!("{made:?}").contains(&made.token));
    // A node sees by the key of its greeting that the service made it, and takes nothing else for that.
    let node = Verifier::of_delegated(VOLUME, key(5).public().as_bytes(), w.clock.clone()).unwrap();
    assert_eq!(node.check(&made.token).unwrap(), token);
    assert_eq!(node.verify(&w.issue(&key(1), 1)).unwrap_err(), Refusal::Signature);
    let other = Verifier::of_delegated(VOLUME, key(6).public().as_bytes(), w.clock.clone()).unwrap();
    assert_eq!(other.verify(&made.token).unwrap_err(), Refusal::Signature);
    // A service without that key knows no such tokens.
    world().refused(&made.token, Refusal::Signature);
}

#[test]
fn a_delegated_token_ends_with_its_parent_or_before() {
    let w = delegating("");
    let signer = delegator(&w);
    let long = signer.delegate(PARENT, &wanted("group/asr", DELEGATED_SECS_MAX), 1).unwrap();
    assert_eq!(long.expires, PARENT.expires);
    for bad in [0, DELEGATED_SECS_MAX + 1, u64::MAX] {
        assert_eq!(signer.delegate(PARENT, &wanted("group/asr", bad), 1).unwrap_err().kind(), Kind::Invalid);
    }
    w.clock.advance(Duration::from_secs(10_000));
    assert_eq!(signer.delegate(PARENT, &wanted("group/asr", 60), 1).unwrap_err().kind(), Kind::Denied);
    w.clock.advance(Duration::from_secs(CLOCK_SKEW_SECS));
    w.refused(&long.token, Refusal::Expired);
}

#[test]
fn revoking_a_token_revokes_what_was_delegated_from_it() {
    let w = delegating("parent-1");
    let made = delegator(&w).delegate(PARENT, &wanted("group/asr", 600), 1).unwrap();
    w.refused(&made.token, Refusal::ParentRevoked);
    let other =
        delegator(&w).delegate(Parent { id: "parent-2", ..PARENT }, &wanted("group/asr", 600), 1).unwrap();
    w.verifier.check(&other.token).unwrap();
}

#[test]
fn neither_signer_says_what_is_the_others_to_say() {
    let w = delegating("");
    let signed = |signer: &SigningKey, change: &dyn Fn(&mut Value)| {
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &w.claims(|c| change(c)), &signer.key).unwrap()
    };
    let child = |c: &mut Value| (c["par"], c["namespaces"]) = (json!("p"), json!(["group/asr"]));
    w.verifier.check(&signed(&key(5), &child)).unwrap();
    w.refused(&signed(&key(1), &child), Refusal::Signer);
    w.refused(&signed(&key(5), &|_| ()), Refusal::Signer);
    w.refused(&signed(&key(5), &|c| c["rights"] = json!("admin")), Refusal::Signer);
    // What the service never makes is not taken from it either.
    for (claim, value) in [
        ("rights", json!("admin")),
        ("rights", json!("delegate")),
        ("namespaces", json!(["*/*"])),
        ("namespaces", json!(["group/*"])),
        ("namespaces", json!(["group/asr", "group/nlp"])),
        ("namespaces", Value::Null),
        ("par", json!("")),
        ("par", json!("a b")),
    ] {
        let token = signed(&key(5), &|c| {
            child(c);
            c[claim] = value.clone();
        });
        assert!(matches!(w.verifier.verify(&token), Err(Refusal::Claims(_))), "{claim} {value}");
    }
    for bad in [json!(["home/x"]), json!("group/asr"), json!([1])] {
        w.refused(&signed(&key(1), &|c| c["namespaces"] = bad.clone()), Refusal::Malformed);
    }
}
