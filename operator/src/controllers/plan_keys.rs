//! Plan keys that pools and users name: read from their Secret, stored sealed, rewritten only when they changed.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use secrecy::ExposeSecret;
use spillway_core::repository::plan_keys::{self, NewPlanKey, PlanKeyRow};
use spillway_core::repository::{Origin, PgConnection};
use spillway_core::security::credentials::{PlanKeyError, PlanSecret};
use spillway_crds::SecretKeyRef;
use uuid::Uuid;

use super::conditions::Problem;
use super::error::ReconcileError;
use super::outcome::{Env, Rows};
use super::references::{check_secret, secret_entry};

/// A reference to a Plan key, and what there is of it.
#[derive(Debug, Clone)]
pub struct PlanKeyObserved {
    namespace: String,
    reference: SecretKeyRef,
    secret: Option<SecretIdentity>,
    value: Result<PlanSecret, Problem>,
    fingerprint: Option<Vec<u8>>,
    row: Option<PlanKeyRow>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct SecretIdentity {
    uid: String,
    version: String,
}

/// What is to be done about a Plan key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanKeyPlan {
    /// The stored one is right.
    Keep(Uuid),
    /// It has to be stored.
    Store,
    /// It cannot be used. The one stored before from the same reference goes on being used, if there is one.
    Unusable(Option<Uuid>, Problem),
}

/// Looks a reference up.
pub async fn observe(
    env: &Env<'_>,
    namespace: &str,
    reference: &SecretKeyRef,
    field: &str,
) -> Result<PlanKeyObserved, ReconcileError> {
    let secret = env.world.secret(namespace, &reference.name).await?;
    let value = match check_secret(secret.as_ref(), field, env.rules) {
        Some(problem) => Err(problem),
        None => read(secret.as_ref(), field, namespace, reference),
    };
    let mut reader = env.rows.reader().await?;
    let row = plan_keys::find(
        &mut reader,
        env.rows.cluster_id(),
        namespace,
        &reference.name,
        &reference.key,
    )
    .await?;
    Ok(PlanKeyObserved {
        namespace: namespace.to_owned(),
        reference: reference.clone(),
        secret: secret.map(|secret| SecretIdentity {
            uid: secret.uid().unwrap_or_default(),
            version: secret.resource_version().unwrap_or_default(),
        }),
        fingerprint: value
            .as_ref()
            .ok()
            .map(|value| env.rows.fingerprint(value.0.expose_secret())),
        value,
        row,
    })
}

fn read(
    secret: Option<&Secret>,
    field: &str,
    namespace: &str,
    reference: &SecretKeyRef,
) -> Result<PlanSecret, Problem> {
    let text = secret_entry(secret, field, namespace, &reference.name, &reference.key)?;
    PlanSecret::parse(text.expose_secret()).map_err(|error| {
        let reason = match error {
            PlanKeyError::OAuthToken => "OAuthTokenRefused",
            PlanKeyError::Empty | PlanKeyError::Characters => "PlanKeyInvalid",
        };
        Problem::reference(
            reason,
            format!("{field} names key {} of Secret {namespace}/{}, which cannot be a Plan key: {error}", reference.key, reference.name),
        )
    })
}

/// Decides by what was observed.
pub fn plan(observed: &PlanKeyObserved) -> PlanKeyPlan {
    let row = observed.row.as_ref();
    if let Err(problem) = &observed.value {
        return PlanKeyPlan::Unusable(row.map(|row| row.id), problem.clone());
    }
    match (row, &observed.secret) {
        (Some(row), Some(secret))
            if row.uid == secret.uid
                && row.secret_version == secret.version
                && observed.fingerprint.as_ref() == Some(&row.fingerprint) =>
        {
            PlanKeyPlan::Keep(row.id)
        }
        _ => PlanKeyPlan::Store,
    }
}

/// A key that is sealed and ready to be stored.
#[derive(Debug, Clone)]
pub struct SealedPlanKey(NewPlanKey);

/// Seals the observed key for its row. `None` for a key that cannot be used.
pub async fn seal(
    rows: &Rows,
    observed: &PlanKeyObserved,
) -> Result<Option<SealedPlanKey>, ReconcileError> {
    let (Ok(value), Some(fingerprint), Some(secret)) =
        (&observed.value, &observed.fingerprint, &observed.secret)
    else {
        return Ok(None);
    };
    let id = observed
        .row
        .as_ref()
        .map_or_else(Uuid::new_v4, |row| row.id);
    let sealed = value
        .seal(&rows.envelope, id)
        .await
        .map_err(ReconcileError::Seal)?;
    Ok(Some(SealedPlanKey(NewPlanKey {
        id,
        secret: Origin {
            cluster_id: rows.cluster_id().to_owned(),
            namespace: observed.namespace.clone(),
            name: observed.reference.name.clone(),
            uid: secret.uid.clone(),
        },
        secret_key: observed.reference.key.clone(),
        secret_version: secret.version.clone(),
        fingerprint: fingerprint.clone(),
        sealed,
        encrypted_with: rows.envelope.encrypted_with(),
    })))
}

/// Stores a sealed key and gives its row.
pub async fn store(
    connection: &mut PgConnection,
    key: &SealedPlanKey,
) -> Result<Uuid, ReconcileError> {
    Ok(plan_keys::upsert(connection, &key.0).await?.id)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn reference() -> SecretKeyRef {
        SecretKeyRef {
            name: "plan".into(),
            key: "KEY".into(),
        }
    }

    fn observed(value: &str, row: Option<PlanKeyRow>) -> PlanKeyObserved {
        let secret = Secret {
            data: Some([("KEY".to_owned(), ByteString(value.as_bytes().to_vec()))].into()),
            ..Secret::default()
        };
        let value = read(
            Some(&secret),
            "spec.plan.apiKeySecretRef",
            "team",
            &reference(),
        );
        PlanKeyObserved {
            namespace: "team".into(),
            reference: reference(),
            secret: Some(SecretIdentity {
                uid: "u1".into(),
                version: "7".into(),
            }),
            fingerprint: value
                .as_ref()
                .ok()
                .map(|value| value.0.expose_secret().as_bytes().to_vec()),
            value,
            row,
        }
    }

    fn row() -> PlanKeyRow {
        PlanKeyRow {
            id: Uuid::from_u128(1),
            uid: "u1".into(),
            secret_version: "7".into(),
            fingerprint: b"sk-ant-api03-x".to_vec(),
            encrypted_with: "local:0".into(),
        }
    }

    #[test]
    fn a_key_is_written_only_when_it_or_its_secret_changed() {
        assert_eq!(plan(&observed("sk-ant-api03-x", None)), PlanKeyPlan::Store);
        assert_eq!(
            plan(&observed("sk-ant-api03-x", Some(row()))),
            PlanKeyPlan::Keep(Uuid::from_u128(1))
        );
        assert_eq!(
            plan(&observed("sk-ant-api03-y", Some(row()))),
            PlanKeyPlan::Store
        );
        assert_eq!(
            plan(&observed(
                "sk-ant-api03-x",
                Some(PlanKeyRow {
                    secret_version: "6".into(),
                    ..row()
                })
            )),
            PlanKeyPlan::Store
        );
        assert_eq!(
            plan(&observed(
                "sk-ant-api03-x",
                Some(PlanKeyRow {
                    uid: "u0".into(),
                    ..row()
                })
            )),
            PlanKeyPlan::Store
        );
    }

    #[test]
    fn an_oauth_token_is_refused_and_the_former_key_stays() {
        let PlanKeyPlan::Unusable(kept, problem) =
            plan(&observed("sk-ant-oat01-secret-token", Some(row())))
        else {
            panic!()
        };
        assert_eq!(kept, Some(Uuid::from_u128(1)));
        assert_eq!(problem.reason, "OAuthTokenRefused");
        assert!(
            problem.message.contains("Secret team/plan")
                && problem.message.contains("Anthropic Console"),
            "{}",
            problem.message
        );
        assert!(!problem.message.contains("secret-token"));
    }
}
