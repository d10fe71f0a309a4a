-- Keys, configuration and usage: what the operator writes for proxies, and what proxies write back.
-- Rows that came from a resource carry cluster_id, namespace, name and uid of it.

-- Which operator may write for a cluster. Every writing transaction holds its row FOR SHARE and compares the epoch, so
-- that a leader which was replaced without noticing cannot write any more.
CREATE TABLE operator_epochs (
    cluster_id text PRIMARY KEY,
    epoch      bigint NOT NULL,
    holder     text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- Tells whether a process holds the same master secrets as the one that wrote the rows; says nothing else about them.
CREATE TABLE key_checks (
    cluster_id text NOT NULL,
    kind       text NOT NULL CHECK (kind IN ('hasher', 'encryption')),
    secret_id  text NOT NULL,
    value      bytea NOT NULL CHECK (octet_length(value) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (cluster_id, kind, secret_id)
);

-- One row for each key of a Secret that a pool or user names as its Anthropic API key.
CREATE TABLE plan_keys (
    id             uuid PRIMARY KEY,
    cluster_id     text NOT NULL,
    namespace      text NOT NULL,
    name           text NOT NULL, -- of the Secret
    secret_key     text NOT NULL,
    uid            text NOT NULL, -- of the Secret
    secret_version text NOT NULL, -- resourceVersion of the Secret
    fingerprint    bytea NOT NULL, -- keyed hash of the plaintext: is it still the same?
    sealed         bytea NOT NULL,
    encrypted_with text NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (cluster_id, namespace, name, secret_key)
);

-- BedrockCredential resources.
CREATE TABLE bedrock_keys (
    id             uuid PRIMARY KEY,
    cluster_id     text NOT NULL,
    namespace      text NOT NULL,
    name           text NOT NULL,
    uid            text NOT NULL,
    access_key_id  uuid, -- set: the credential serves this key alone; its foreign key follows below
    region         text NOT NULL,
    endpoint_url   text,
    auth_kind      text NOT NULL CHECK (auth_kind IN ('access_keys', 'api_key', 'pod_identity')),
    secret_version text, -- resourceVersion of the Secret, where there is one
    fingerprint    bytea NOT NULL,
    sealed         bytea NOT NULL,
    encrypted_with text NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    deleted_at     timestamptz
);
CREATE UNIQUE INDEX bedrock_keys_living ON bedrock_keys (cluster_id, namespace, name) WHERE deleted_at IS NULL;

-- ProxyPool resources. NULL leaves a setting to the proxy's environment.
CREATE TABLE pools (
    id                             uuid PRIMARY KEY,
    cluster_id                     text NOT NULL,
    namespace                      text NOT NULL,
    name                           text NOT NULL,
    uid                            text NOT NULL,
    plan_api_url                   text,
    plan_key_id                    uuid REFERENCES plan_keys ON DELETE SET NULL,
    fallback_enabled               boolean,
    bedrock_region                 text,
    bedrock_default_model          text,
    bedrock_key_id                 uuid REFERENCES bedrock_keys ON DELETE SET NULL,
    circuit_failure_threshold      integer CHECK (circuit_failure_threshold > 0),
    circuit_failure_rate           integer CHECK (circuit_failure_rate BETWEEN 1 AND 100),
    circuit_failure_window_seconds integer CHECK (circuit_failure_window_seconds > 0),
    circuit_reset_timeout_seconds  integer CHECK (circuit_reset_timeout_seconds > 0),
    created_at                     timestamptz NOT NULL DEFAULT now(),
    updated_at                     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (cluster_id, namespace, name)
);

-- models[] of a pool, in order.
CREATE TABLE model_mappings (
    id                   uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    pool_id              uuid NOT NULL REFERENCES pools ON DELETE CASCADE,
    position             integer NOT NULL,
    name                 text NOT NULL,
    bedrock_model_id     text,
    bedrock_api          text NOT NULL CHECK (bedrock_api IN ('Auto', 'InvokeModel', 'Converse')),
    -- Micro-USD per million tokens; all of them or none.
    price_input          bigint CHECK (price_input >= 0),
    price_output         bigint CHECK (price_output >= 0),
    price_cache_read     bigint CHECK (price_cache_read >= 0),
    price_cache_write_5m bigint CHECK (price_cache_write_5m >= 0),
    price_cache_write_1h bigint CHECK (price_cache_write_1h >= 0),
    created_at           timestamptz NOT NULL DEFAULT now(),
    updated_at           timestamptz NOT NULL DEFAULT now(),
    UNIQUE (pool_id, position),
    CHECK (num_nulls(price_input, price_output, price_cache_read, price_cache_write_5m, price_cache_write_1h) IN (0, 5))
);

-- ProxyUser resources.
CREATE TABLE users (
    id             uuid PRIMARY KEY,
    cluster_id     text NOT NULL,
    namespace      text NOT NULL,
    name           text NOT NULL,
    uid            text NOT NULL,
    email          text,
    display_name   text,
    pool_id        uuid REFERENCES pools ON DELETE SET NULL,
    suspended      boolean NOT NULL DEFAULT false,
    allowed_models text[] NOT NULL DEFAULT '{}',
    plan_key_id    uuid REFERENCES plan_keys ON DELETE SET NULL,
    bedrock_key_id uuid REFERENCES bedrock_keys ON DELETE SET NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    deleted_at     timestamptz
);
CREATE UNIQUE INDEX users_living ON users (cluster_id, namespace, name) WHERE deleted_at IS NULL;
CREATE INDEX users_pool ON users (pool_id) WHERE deleted_at IS NULL;

-- AccessKey resources. Usage and limits refer to these and survive rotation.
CREATE TABLE access_keys (
    id             uuid PRIMARY KEY,
    cluster_id     text NOT NULL,
    namespace      text NOT NULL,
    name           text NOT NULL,
    uid            text NOT NULL,
    user_id        uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    disabled       boolean NOT NULL DEFAULT false,
    expires_at     timestamptz,
    allowed_models text[] NOT NULL DEFAULT '{}',
    bedrock_key_id uuid REFERENCES bedrock_keys ON DELETE SET NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    deleted_at     timestamptz
);
CREATE UNIQUE INDEX access_keys_living ON access_keys (cluster_id, namespace, name) WHERE deleted_at IS NULL;
CREATE INDEX access_keys_user ON access_keys (user_id) WHERE deleted_at IS NULL;
ALTER TABLE bedrock_keys ADD FOREIGN KEY (access_key_id) REFERENCES access_keys ON DELETE CASCADE;

-- What clients send, as HMAC-SHA256. pool_id is the user's, so that a hash can be unique among a pool's living.
CREATE TABLE access_key_versions (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    access_key_id uuid NOT NULL REFERENCES access_keys ON DELETE CASCADE,
    pool_id       uuid REFERENCES pools ON DELETE SET NULL,
    key_id        text NOT NULL,
    key_hash      bytea NOT NULL CHECK (octet_length(key_hash) = 32),
    hasher_id     text NOT NULL,
    expires_at    timestamptz,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    deleted_at    timestamptz
);
CREATE UNIQUE INDEX access_key_versions_hash ON access_key_versions (pool_id, key_hash) WHERE deleted_at IS NULL;
CREATE INDEX access_key_versions_key ON access_key_versions (access_key_id);

-- One row for each messages request. Never any prompt or answer.
CREATE TABLE token_usages (
    request_id                  uuid NOT NULL,
    created_at                  timestamptz NOT NULL,
    inserted_at                 timestamptz NOT NULL DEFAULT now(),
    access_key_id               uuid REFERENCES access_keys ON DELETE SET NULL,
    user_id                     uuid REFERENCES users ON DELETE SET NULL,
    key_id                      text NOT NULL,
    namespace                   text NOT NULL,
    key_name                    text NOT NULL,
    user_name                   text NOT NULL,
    pool                        text NOT NULL,
    model                       text NOT NULL,
    upstream_model              text,
    upstream_request_id         text,
    provider                    text CHECK (provider IN ('plan', 'bedrock')),
    is_fallback                 boolean NOT NULL,
    fallback_reason             text,
    status                      text NOT NULL CHECK
        (status IN ('ok', 'client_error', 'upstream_error', 'client_aborted', 'interrupted', 'blocked')),
    http_status                 integer NOT NULL,
    stream                      boolean NOT NULL,
    input_tokens                bigint NOT NULL,
    output_tokens               bigint NOT NULL,
    cache_read_input_tokens     bigint NOT NULL,
    cache_creation_input_tokens bigint NOT NULL,
    cache_creation_5m_tokens    bigint NOT NULL,
    cache_creation_1h_tokens    bigint NOT NULL,
    cost_micro_usd              bigint NOT NULL,
    abandoned_provider          text CHECK (abandoned_provider IN ('plan', 'bedrock')),
    abandoned_input_tokens      bigint NOT NULL DEFAULT 0,
    abandoned_output_tokens     bigint NOT NULL DEFAULT 0,
    abandoned_cost_micro_usd    bigint NOT NULL DEFAULT 0,
    price_source                text NOT NULL,
    estimated                   boolean NOT NULL,
    latency_ms                  bigint NOT NULL,
    ttft_ms                     bigint,
    session_id                  text,
    agent_id                    text,
    UNIQUE (request_id, created_at)
) PARTITION BY RANGE (created_at);
CREATE TABLE token_usages_default PARTITION OF token_usages DEFAULT;
CREATE INDEX token_usages_access_key_id ON token_usages (access_key_id, created_at);
CREATE INDEX token_usages_created_at ON token_usages (created_at);

-- Sums by key, hour, model and provider, changed in the transaction that inserts the rows. access_key_id refers to no
-- row, so that sums outlive the key.
CREATE TABLE usage_aggregates (
    access_key_id               uuid NOT NULL,
    user_id                     uuid NOT NULL,
    time_bucket                 timestamptz NOT NULL,
    model                       text NOT NULL,
    provider                    text NOT NULL, -- '' where no upstream was asked
    requests                    bigint NOT NULL,
    fallback_requests           bigint NOT NULL,
    input_tokens                bigint NOT NULL,
    output_tokens               bigint NOT NULL,
    cache_read_input_tokens     bigint NOT NULL,
    cache_creation_input_tokens bigint NOT NULL,
    cost_micro_usd              bigint NOT NULL, -- abandoned attempts included
    last_used_at                timestamptz NOT NULL,
    created_at                  timestamptz NOT NULL DEFAULT now(),
    updated_at                  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (access_key_id, time_bucket, model, provider)
);
CREATE INDEX usage_aggregates_user ON usage_aggregates (user_id, time_bucket);
CREATE INDEX usage_aggregates_time ON usage_aggregates (time_bucket);

-- Usage that could not be inserted although the database was there. Nothing is thrown away: look at `error`, mend, re-insert.
CREATE TABLE usage_rejects (
    request_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    record     jsonb NOT NULL,
    error      text NOT NULL,
    rejected_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (request_id, created_at)
);

-- Tells proxies that their keys or configuration changed, once for each transaction. A statement that changed no row
-- says nothing.
CREATE FUNCTION spillway_notify_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM changed) THEN
        PERFORM pg_notify('spillway_changes', 'all');
    END IF;
    RETURN NULL;
END $$;

DO $$
DECLARE
    watched text;
BEGIN
    FOREACH watched IN ARRAY ARRAY['pools', 'model_mappings', 'plan_keys', 'bedrock_keys', 'users', 'access_keys', 'access_key_versions'] LOOP
        EXECUTE format('CREATE TRIGGER notify_insert AFTER INSERT ON %I REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION spillway_notify_changes()', watched);
        EXECUTE format('CREATE TRIGGER notify_update AFTER UPDATE ON %I REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION spillway_notify_changes()', watched);
        EXECUTE format('CREATE TRIGGER notify_delete AFTER DELETE ON %I REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION spillway_notify_changes()', watched);
    END LOOP;
END $$;
