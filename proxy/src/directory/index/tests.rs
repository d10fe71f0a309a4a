use secrecy::ExposeSecret as _;
use spillway_core::domain::pool::{
    BedrockKeyEntry, CircuitBreakerConfig, KeyVersionEntry, PlanKeyEntry,
};
use spillway_core::security::credentials::{BedrockSecret, PlanSecret};
use spillway_core::security::envelope::Envelope;

use super::*;

const POOL: Uuid = Uuid::from_u128(1);
const USER: Uuid = Uuid::from_u128(2);
const KEY: Uuid = Uuid::from_u128(3);
const OF_POOL: Uuid = Uuid::from_u128(10);
const OF_USER: Uuid = Uuid::from_u128(11);
const OF_KEY: Uuid = Uuid::from_u128(12);

fn envelope() -> Envelope {
    Envelope::local(&"0123456789abcdef0123456789abcdef".into()).unwrap()
}

pub(in crate::directory) async fn snapshot() -> PoolSnapshot {
    let envelope = &envelope();
    let mut plan_keys = Vec::new();
    let mut bedrock_keys = Vec::new();
    for (id, name) in [(OF_POOL, "pool"), (OF_USER, "user"), (OF_KEY, "key")] {
        let plan = PlanSecret::parse(&format!("sk-ant-of-{name}")).unwrap();
        plan_keys.push(PlanKeyEntry {
            id,
            sealed: plan.seal(envelope, id).await.unwrap(),
        });
        let bedrock = BedrockSecret::ApiKey(format!("bedrock-of-{name}").into());
        bedrock_keys.push(BedrockKeyEntry {
            id,
            region: format!("region-of-{name}"),
            endpoint_url: None,
            sealed: bedrock.seal(envelope, id).await.unwrap(),
        });
    }
    PoolSnapshot {
        pool: PoolConfig {
            id: POOL,
            namespace: "spillway".into(),
            name: "default".into(),
            plan_api_url: Some("https://plan.example.com".into()),
            plan_key_id: Some(OF_POOL),
            fallback_enabled: None,
            bedrock_region: None,
            bedrock_default_model: None,
            bedrock_key_id: Some(OF_POOL),
            circuit_breaker: CircuitBreakerConfig {
                failure_threshold: Some(9),
                ..CircuitBreakerConfig::default()
            },
            models: Vec::new(),
        },
        users: vec![UserEntry {
            id: USER,
            namespace: "team".into(),
            name: "alice".into(),
            suspended: false,
            allowed_models: ModelPatterns::new(["claude-*"]).unwrap(),
            plan_key_id: None,
            bedrock_key_id: None,
        }],
        access_keys: vec![AccessKeyEntry {
            id: KEY,
            user_id: USER,
            name: "laptop".into(),
            disabled: false,
            expires_at: None,
            allowed_models: ModelPatterns::new(["*haiku*"]).unwrap(),
            bedrock_key_id: None,
        }],
        versions: vec![KeyVersionEntry {
            access_key_id: KEY,
            key_id: "0123456789".into(),
            key_hash: KeyHash([7; 32]),
            expires_at: None,
        }],
        plan_keys,
        bedrock_keys,
        key_checks: Vec::new(),
    }
}

fn defaults() -> PoolDefaults {
    PoolDefaults {
        plan_api_url: Url::parse("https://of-environment.example.com").unwrap(),
        plan_api_key: Some("sk-ant-of-environment".into()),
        bedrock_region: None,
        bedrock_default_model: Some("model-of-environment".into()),
        circuit: CircuitSettings {
            failure_threshold: 3,
            failure_rate: 50,
            failure_window: Duration::from_mins(1),
            reset_timeout: Duration::from_mins(30),
        },
    }
}

fn vault() -> Vault {
    let allowed = "plan.example.com,of-environment.example.com,bedrock.example.com";
    Vault::new(envelope(), allowed.parse().unwrap())
}

async fn entry(snapshot: &PoolSnapshot, defaults: &PoolDefaults) -> Arc<KeyEntry> {
    let mut vault = vault();
    assert_eq!(vault.open(snapshot).await.unreadable, 0);
    Arc::clone(
        Index::build(snapshot, &mut vault, defaults)
            .get(&KeyHash([7; 32]))
            .unwrap(),
    )
}

fn plan_of(entry: &KeyEntry) -> Option<(&str, &str)> {
    entry
        .caller
        .plan
        .as_ref()
        .map(|plan| (plan.key.expose_secret(), plan.api_url.as_str()))
}

fn region_of(entry: &KeyEntry) -> Option<&str> {
    entry
        .caller
        .bedrock
        .as_ref()
        .map(|bedrock| bedrock.region.as_str())
}

#[tokio::test]
async fn credentials_come_from_the_key_else_the_user_else_the_pool() {
    let mut snapshot = snapshot().await;
    let of_pool = entry(&snapshot, &defaults()).await;
    assert_eq!(
        plan_of(&of_pool),
        Some(("sk-ant-of-pool", "https://plan.example.com/"))
    );
    assert_eq!(region_of(&of_pool), Some("region-of-pool"));
    snapshot.users[0].plan_key_id = Some(OF_USER);
    snapshot.users[0].bedrock_key_id = Some(OF_USER);
    let of_user = entry(&snapshot, &defaults()).await;
    assert_eq!(
        plan_of(&of_user),
        Some(("sk-ant-of-user", "https://of-environment.example.com/"))
    );
    assert_eq!(region_of(&of_user), Some("region-of-user"));
    snapshot.access_keys[0].bedrock_key_id = Some(OF_KEY);
    assert_eq!(
        region_of(&*entry(&snapshot, &defaults()).await),
        Some("region-of-key")
    );
}

#[tokio::test]
async fn the_environments_plan_key_goes_to_the_environments_url_alone() {
    let mut snapshot = snapshot().await;
    snapshot.pool.plan_key_id = None;
    let found = entry(&snapshot, &defaults()).await;
    assert_eq!(
        plan_of(&found),
        Some((
            "sk-ant-of-environment",
            "https://of-environment.example.com/"
        ))
    );
    let without = PoolDefaults {
        plan_api_key: None,
        ..defaults()
    };
    assert_eq!(plan_of(&*entry(&snapshot, &without).await), None);
}

#[tokio::test]
async fn a_credential_whose_place_is_not_allowed_is_not_used() {
    let mut snapshot = snapshot().await;
    snapshot.pool.plan_api_url = Some("https://elsewhere.example.com".into());
    snapshot.bedrock_keys[0].endpoint_url = Some("https://169.254.169.254".into());
    let found = entry(&snapshot, &defaults()).await;
    assert_eq!((plan_of(&found), region_of(&found)), (None, None));
    snapshot.bedrock_keys[0].endpoint_url = Some("https://bedrock.example.com".into());
    assert_eq!(
        region_of(&*entry(&snapshot, &defaults()).await),
        Some("region-of-pool")
    );
}

#[tokio::test]
async fn without_fallback_there_is_no_bedrock_and_without_credential_the_pods_identity_where_a_region_is_set()
 {
    let mut snapshot = snapshot().await;
    snapshot.pool.fallback_enabled = Some(false);
    snapshot.access_keys[0].bedrock_key_id = Some(OF_KEY);
    assert_eq!(region_of(&*entry(&snapshot, &defaults()).await), None);
    snapshot.pool.fallback_enabled = None;
    snapshot.pool.bedrock_key_id = None;
    snapshot.access_keys[0].bedrock_key_id = None;
    assert_eq!(region_of(&*entry(&snapshot, &defaults()).await), None);
    let regional = PoolDefaults {
        bedrock_region: Some("eu-west-1".into()),
        ..defaults()
    };
    let found = entry(&snapshot, &regional).await;
    assert_eq!(region_of(&found), Some("eu-west-1"));
    assert!(matches!(
        found.caller.bedrock.as_ref().unwrap().secret,
        BedrockSecret::PodIdentity
    ));
}

#[tokio::test]
async fn what_the_pool_says_wins_over_the_environment() {
    let mut snapshot = snapshot().await;
    let pool = Arc::clone(&entry(&snapshot, &defaults()).await.pool);
    assert_eq!(pool.default_model.as_deref(), Some("model-of-environment"));
    assert_eq!(
        (pool.circuit.failure_threshold, pool.circuit.reset_timeout),
        (9, Duration::from_mins(30))
    );
    snapshot.pool.bedrock_default_model = Some("model-of-pool".into());
    snapshot.pool.bedrock_region = Some("region-set-in-pool".into());
    let found = entry(&snapshot, &defaults()).await;
    assert_eq!(found.pool.default_model.as_deref(), Some("model-of-pool"));
    assert_eq!(region_of(&found), Some("region-set-in-pool"));
}

#[tokio::test]
async fn both_key_and_user_must_allow_a_model() {
    let entry = entry(&snapshot().await, &defaults()).await;
    assert!(entry.allows("claude-haiku-4-5"));
    assert!(!entry.allows("claude-opus-4-8"));
    assert!(!entry.allows("other-haiku"));
}

#[tokio::test]
async fn an_unchanged_credential_stays_the_same_and_a_changed_one_is_read_anew() {
    let mut snapshot = snapshot().await;
    let mut vault = vault();
    let mut bedrock = async |snapshot: &PoolSnapshot| {
        vault.open(snapshot).await;
        let index = Index::build(snapshot, &mut vault, &defaults());
        index
            .get(&KeyHash([7; 32]))
            .unwrap()
            .caller
            .bedrock
            .clone()
            .unwrap()
    };
    let first = bedrock(&snapshot).await;
    assert!(Arc::ptr_eq(&first, &bedrock(&snapshot).await));
    let other = BedrockSecret::ApiKey("another".into());
    snapshot.bedrock_keys[0].sealed = other.seal(&envelope(), OF_POOL).await.unwrap();
    let changed = bedrock(&snapshot).await;
    assert!(
        matches!(&changed.secret, BedrockSecret::ApiKey(key) if key.expose_secret() == "another")
    );
}

#[tokio::test]
async fn a_credential_that_cannot_be_read_takes_only_itself_away() {
    let mut snapshot = snapshot().await;
    let foreign = snapshot.plan_keys[1].sealed.clone();
    snapshot.plan_keys[0].sealed = foreign;
    let mut vault = vault();
    assert_eq!(vault.open(&snapshot).await.unreadable, 1);
    let index = Index::build(&snapshot, &mut vault, &defaults());
    let entry = index.get(&KeyHash([7; 32])).unwrap();
    assert_eq!(
        (plan_of(entry), region_of(entry)),
        (None, Some("region-of-pool"))
    );
}

#[tokio::test]
async fn a_credential_that_is_named_but_gone_is_replaced_by_no_other() {
    let gone = Some(Uuid::from_u128(0xdead));
    let regional = PoolDefaults {
        bedrock_region: Some("eu-west-1".into()),
        ..defaults()
    };
    let complete = snapshot().await;
    let name: [fn(&mut PoolSnapshot, Option<Uuid>); 3] = [
        |snapshot, id| snapshot.access_keys[0].bedrock_key_id = id,
        |snapshot, id| snapshot.users[0].bedrock_key_id = id,
        |snapshot, id| snapshot.pool.bedrock_key_id = id,
    ];
    for set in name {
        let mut snapshot = complete.clone();
        set(&mut snapshot, gone);
        assert_eq!(region_of(&*entry(&snapshot, &regional).await), None);
    }
    let mut snapshot = complete.clone();
    snapshot.pool.plan_key_id = gone;
    assert_eq!(plan_of(&*entry(&snapshot, &regional).await), None);
    let mut snapshot = complete;
    snapshot.users[0].plan_key_id = gone;
    assert_eq!(plan_of(&*entry(&snapshot, &regional).await), None);
}
