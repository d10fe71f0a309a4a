use chrono::TimeDelta;
use serde_json::{Value, json};
use spillway_core::repository::access_keys::Holder;

use super::super::status::{KEY_IN_USE, outcome};
use super::*;

const USER: Uuid = Uuid::from_u128(1);
const CREDENTIAL: Uuid = Uuid::from_u128(2);

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn key(more: &Value) -> AccessKey {
    let mut spec = json!({ "userRef": { "name": "alice" }, "secretName": "ci-key" });
    spec.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "spillway.dev/v1alpha1", "kind": "AccessKey",
        "metadata": { "name": "ci", "namespace": "team", "uid": "u1" }, "spec": spec,
    }))
    .unwrap()
}

fn row() -> AccessKeyRow {
    AccessKeyRow {
        user_id: USER,
        disabled: false,
        expires_at: None,
        allowed_models: vec![],
        bedrock_key_id: Some(CREDENTIAL),
    }
}

fn observed(key: KeyObserved, stored: Option<AccessKeyRow>) -> Observed {
    Observed {
        user: UserObserved::Ready {
            id: USER,
            suspended: false,
        },
        base_url: Some("http://pool".into()),
        credential: None,
        owner: None,
        key,
        stored: stored.map(|row| Stored {
            uid: "u1".into(),
            row,
            versions: vec![],
        }),
    }
}

fn holder(uid: &str, name: &str, is_living: bool) -> Holder {
    Holder {
        namespace: "team".into(),
        name: name.into(),
        uid: uid.into(),
        is_living,
    }
}

#[test]
fn a_key_that_ended_with_its_access_key_is_not_taken_over() {
    let claim = |holders: &[Holder]| claim(holders, "team", "ci", "u1");
    assert_eq!(claim(&[]), Claim::Own, "restored into an empty database");
    assert_eq!(claim(&[holder("u1", "ci", true)]), Claim::Own);
    assert_eq!(
        claim(&[holder("u1", "ci", false)]),
        Claim::Own,
        "its user was away"
    );
    assert_eq!(
        claim(&[holder("u0", "ci", true)]),
        Claim::Own,
        "restored beside its row"
    );
    assert_eq!(claim(&[holder("u0", "ci", false)]), Claim::Revoked);
    assert_eq!(
        claim(&[holder("u0", "ci", false), holder("u1", "ci", true)]),
        Claim::Own
    );
    assert_eq!(claim(&[holder("u9", "other", false)]), Claim::OfAnother);
}

#[test]
fn a_revoked_key_is_replaced_in_its_secret_once_everything_is_ready() {
    let revoked = || KeyObserved::Revoked {
        key_id: "0123456789".into(),
        secret: Box::default(),
    };
    let ready = plan(&observed(revoked(), None), &key(&json!({})), now());
    assert_eq!(
        ready.step,
        Some(Step::Renew(Box::default(), "0123456789".into()))
    );
    let mut waiting = observed(revoked(), None);
    waiting.user = UserObserved::Missing;
    let waiting = plan(&waiting, &key(&json!({})), now());
    assert_eq!(waiting.step, None);
    assert_eq!(waiting.problems[1].reason, "KeyRevoked");
}

#[test]
fn refusals_are_told_from_the_own_row_alone() {
    let disabled = key(&json!({ "disabled": true, "expiresAt": "2030-01-01T00:00:00+01:00" }));
    let wanted = Restriction {
        disabled: true,
        expires_at: DateTime::from_timestamp(1_893_452_400, 0),
    };
    assert_eq!(restriction(&disabled, "u1", &row()), Some(wanted));
    let stored = AccessKeyRow {
        disabled: true,
        expires_at: wanted.expires_at,
        ..row()
    };
    assert_eq!(restriction(&disabled, "u1", &stored), None);
    assert_eq!(
        restriction(&disabled, "u0", &row()),
        None,
        "another resource's row"
    );
    let unreadable = key(&json!({ "disabled": true, "expiresAt": "2030-01-01T00:00:00x5Z" }));
    assert_eq!(
        restriction(&unreadable, "u1", &stored),
        None,
        "the former end stays"
    );
}

#[test]
fn a_time_that_cannot_be_read_is_told_and_holds_a_new_key_back() {
    for text in ["2030-01-01T00:00:00x5Z", "tomorrow", ""] {
        let key = key(&json!({ "expiresAt": text }));
        let new = plan(&observed(KeyObserved::Absent, None), &key, now());
        assert_eq!(
            (new.step, new.problems[0].reason),
            (None, "ExpiresAtInvalid"),
            "{text}"
        );
        assert!(new.problems[0].message.contains("2030-01-31T00:00:00Z"));
    }
    let far = key(&json!({ "expiresAt": "9999-12-31T23:59:59Z" }));
    assert!(expiry(&far).unwrap().is_some());
}

#[test]
fn a_broken_credential_reference_leads_to_no_wider_credential() {
    let absent = || Some(Err(Problem::reference("CredentialNotFound", "create it")));
    let mut existing = observed(
        KeyObserved::Unusable(Problem::key("SecretDamaged", "restore it")),
        Some(row()),
    );
    existing.credential = absent();
    assert_eq!(
        plan(&existing, &key(&json!({})), now()).step,
        None,
        "the former reference stays"
    );
    let mut new = observed(KeyObserved::Absent, None);
    new.credential = absent();
    assert_eq!(plan(&new, &key(&json!({})), now()).step, None);
}

#[test]
fn a_key_that_is_in_use_is_looked_at_again_soon() {
    let key = key(&json!({ "expiresAt": "2030-01-01T00:00:00Z" }));
    let seen = observed(KeyObserved::Absent, Some(row()));
    let again = |problems| {
        outcome(
            &key,
            &seen,
            &Plan {
                step: None,
                problems,
            },
            now(),
        )
        .again_in
    };
    let soon = again(vec![Problem::key(KEY_IN_USE, "bring another")]).unwrap();
    assert!(soon <= TimeDelta::seconds(15).to_std().unwrap(), "{soon:?}");
    assert!(again(vec![]).unwrap() > soon);
}
