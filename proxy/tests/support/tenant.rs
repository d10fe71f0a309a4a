//! Rows as the operator writes them: a pool with its credentials, a user, keys.

use chrono::Utc;
use secrecy::SecretString;
use spillway_core::domain::pool::{CircuitBreakerConfig, KeyCheck, PoolConfig, SecretKind};
use spillway_core::repository::access_keys::{self, AccessKeyRow, Version};
use spillway_core::repository::bedrock_keys::{self, NewBedrockKey};
use spillway_core::repository::plan_keys::{self, NewPlanKey};
use spillway_core::repository::pools::{self, NewPool};
use spillway_core::repository::users::{self, UserRow};
use spillway_core::repository::{self, Origin, key_checks};
use spillway_core::security::credentials::{BedrockSecret, PlanSecret};
use spillway_core::security::envelope::Envelope;
use spillway_core::security::hasher::KeyHasher;
use spillway_core::security::key::AccessKeyToken;
use spillway_e2e::upstream::{
    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, FakeUpstreams, PLAN_API_KEY,
};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

pub const HASHER_SECRET: &str = "hasher-secret-of-the-proxys-tests";
pub const ENCRYPTION_KEY: &str = "0123456789abcdef0123456789abcdef";
pub const CLUSTER: &str = "local";
pub const MODEL: &str = "claude-sonnet-4-5-20250929";
const BEDROCK_MODEL: &str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
const REGION: &str = "us-east-1";

/// What a test changes about its user.
pub struct Tenant {
    pub database: PgPool,
    pool: PoolConfig,
    pool_id: Uuid,
    user: UserRow,
    user_id: Uuid,
}

impl Tenant {
    /// Migrates the database and writes pool and user.
    pub async fn create(database: PgPool, fakes: &FakeUpstreams) -> Self {
        repository::migrate(&database).await.unwrap();
        let envelope = Envelope::local(&SecretString::from(ENCRYPTION_KEY)).unwrap();
        let mut connection = database.acquire().await.unwrap();
        remember_secrets(&mut connection, &envelope).await;
        let (plan_key, bedrock_key) = write_credentials(&mut connection, &envelope).await;
        let config = PoolConfig {
            id: Uuid::nil(),
            namespace: String::new(),
            name: String::new(),
            plan_api_url: Some(fakes.plan_url.clone()),
            plan_key_id: Some(plan_key),
            fallback_enabled: None,
            bedrock_region: None,
            bedrock_default_model: Some(BEDROCK_MODEL.to_owned()),
            bedrock_key_id: Some(bedrock_key),
            circuit_breaker: CircuitBreakerConfig::default(),
            models: Vec::new(),
        };
        let pool_id = pools::upsert(
            &mut connection,
            &NewPool {
                origin: origin("default"),
                config: config.clone(),
            },
        )
        .await
        .unwrap()
        .id;
        let user = UserRow {
            email: Some("alice@example.com".to_owned()),
            display_name: None,
            pool_id: Some(pool_id),
            suspended: false,
            allowed_models: Vec::new(),
            plan_key_id: None,
            bedrock_key_id: None,
        };
        let user_id = users::upsert(&mut connection, &origin("alice"), &user)
            .await
            .unwrap()
            .id;
        drop(connection);
        Self {
            database,
            pool: config,
            pool_id,
            user,
            user_id,
        }
    }

    /// Changes the pool.
    pub async fn change_pool(&mut self, change: impl FnOnce(&mut PoolConfig)) {
        change(&mut self.pool);
        let mut connection = self.database.acquire().await.unwrap();
        let pool = NewPool {
            origin: origin("default"),
            config: self.pool.clone(),
        };
        pools::upsert(&mut connection, &pool).await.unwrap();
    }

    /// Writes a Bedrock credential of this resource name, and returns its row.
    pub async fn write_bedrock(&self, name: &str, secret: &BedrockSecret) -> Uuid {
        let envelope = Envelope::local(&SecretString::from(ENCRYPTION_KEY)).unwrap();
        let mut connection = self.database.acquire().await.unwrap();
        insert_bedrock(&mut connection, &envelope, name, secret).await
    }

    /// The pool's row.
    pub fn pool_id(&self) -> Uuid {
        self.pool_id
    }

    /// Mints a key of this resource name.
    pub async fn mint(&self, name: &str) -> AccessKeyToken {
        let key = AccessKeyToken::generate().unwrap();
        self.write_key(name, &key, |_| {}).await;
        key
    }

    /// Writes a key with changes to its row.
    pub async fn write_key(
        &self,
        name: &str,
        key: &AccessKeyToken,
        change: impl FnOnce(&mut AccessKeyRow),
    ) {
        let mut row = AccessKeyRow {
            user_id: self.user_id,
            disabled: false,
            expires_at: None,
            allowed_models: Vec::new(),
            bedrock_key_id: None,
        };
        change(&mut row);
        let (key_hash, hasher_id) = {
            let hasher = hasher();
            let (hash, id) = hasher.hash(key.expose());
            (hash, id.to_owned())
        };
        let version = Version {
            key_id: key.id().unwrap().to_owned(),
            key_hash,
            hasher_id,
            expires_at: None,
            created_at: Utc::now(),
        };
        let mut connection = self.database.acquire().await.unwrap();
        access_keys::upsert(&mut connection, &origin(name), &row, &[version])
            .await
            .unwrap();
    }

    /// Deletes a key as the operator does.
    pub async fn delete_key(&self, name: &str) {
        let mut connection = self.database.acquire().await.unwrap();
        assert!(
            access_keys::soft_delete(&mut connection, CLUSTER, &origin(name).uid)
                .await
                .unwrap()
        );
    }

    /// Suspends the user, or lets it go on.
    pub async fn suspend(&mut self, suspended: bool) {
        self.user.suspended = suspended;
        let mut connection = self.database.acquire().await.unwrap();
        users::upsert(&mut connection, &origin("alice"), &self.user)
            .await
            .unwrap();
    }
}

pub fn hasher() -> KeyHasher {
    KeyHasher::from_config(&SecretString::from(HASHER_SECRET)).unwrap()
}

fn origin(name: &str) -> Origin {
    Origin {
        cluster_id: CLUSTER.to_owned(),
        namespace: "default".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
    }
}

async fn remember_secrets(connection: &mut PgConnection, envelope: &Envelope) {
    let checks = hasher()
        .check_values()
        .map(|(id, value)| KeyCheck {
            kind: SecretKind::Hasher,
            secret_id: id.to_owned(),
            value,
        })
        .chain(
            envelope
                .check_values()
                .into_iter()
                .map(|(secret_id, value)| KeyCheck {
                    kind: SecretKind::Encryption,
                    secret_id,
                    value,
                }),
        )
        .collect::<Vec<_>>();
    for check in checks {
        key_checks::remember(&mut *connection, CLUSTER, &check)
            .await
            .unwrap();
    }
}

/// The pool's Plan key and Bedrock credential.
async fn write_credentials(connection: &mut PgConnection, envelope: &Envelope) -> (Uuid, Uuid) {
    let plan_key = Uuid::new_v4();
    let new = NewPlanKey {
        id: plan_key,
        secret: origin("plan-key"),
        secret_key: "ANTHROPIC_API_KEY".to_owned(),
        secret_version: "1".to_owned(),
        fingerprint: vec![1],
        sealed: PlanSecret::parse(PLAN_API_KEY)
            .unwrap()
            .seal(envelope, plan_key)
            .await
            .unwrap(),
        encrypted_with: envelope.encrypted_with(),
    };
    plan_keys::upsert(&mut *connection, &new).await.unwrap();
    let secret = BedrockSecret::AccessKeys {
        access_key_id: AWS_ACCESS_KEY_ID.to_owned(),
        secret_access_key: AWS_SECRET_ACCESS_KEY.into(),
        session_token: None,
    };
    let bedrock_key = insert_bedrock(connection, envelope, "bedrock", &secret).await;
    (plan_key, bedrock_key)
}

async fn insert_bedrock(
    connection: &mut PgConnection,
    envelope: &Envelope,
    name: &str,
    secret: &BedrockSecret,
) -> Uuid {
    let id = Uuid::new_v4();
    let new = NewBedrockKey {
        id,
        origin: origin(name),
        region: REGION.to_owned(),
        endpoint_url: None,
        auth_kind: match secret {
            BedrockSecret::AccessKeys { .. } => "access_keys",
            BedrockSecret::ApiKey(_) => "api_key",
            BedrockSecret::PodIdentity => "pod_identity",
        },
        secret_version: Some("1".to_owned()),
        fingerprint: vec![1],
        sealed: secret.seal(envelope, id).await.unwrap(),
        encrypted_with: envelope.encrypted_with(),
    };
    bedrock_keys::upsert(&mut *connection, &new).await.unwrap();
    id
}
