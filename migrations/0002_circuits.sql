-- Circuits that a pool's proxies share. A row is a circuit that is open, or half-open once open_until has passed; one that
-- is closed has none. Nothing here changes a table of the release before, whose proxies go on with their own circuits.
CREATE TABLE circuit_states (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    pool_id       uuid NOT NULL REFERENCES pools ON DELETE CASCADE,
    credential_id uuid NOT NULL, -- of plan_keys; the pool's own id for the key of the proxies' environment
    model         text CHECK (octet_length(model) <= 256), -- NULL: every model of the credential
    reason        text NOT NULL,
    opening       uuid NOT NULL, -- anew each time it opens, so that who found the former one over cannot close this one
    opened_at     timestamptz NOT NULL, -- the first time in a row
    open_until    timestamptz NOT NULL,
    probe_by      uuid, -- the proxy process that may ask the Plan once
    probe_until   timestamptz, -- when its claim ends, settled or not
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    UNIQUE NULLS NOT DISTINCT (pool_id, credential_id, model),
    CHECK (num_nulls(probe_by, probe_until) IN (0, 2))
);
CREATE INDEX circuit_states_credential ON circuit_states (credential_id);

-- What was last asked for by the annotation spillway.dev/reset-circuit of a pool. Not a column of pools: that would make
-- every proxy load all its keys, and break the prepared statements of those that run.
CREATE TABLE circuit_resets (
    pool_id    uuid PRIMARY KEY REFERENCES pools ON DELETE CASCADE,
    handled    text NOT NULL,
    number     bigint NOT NULL DEFAULT 1, -- counts them, so that proxies see that there was one
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- Tells proxies whose circuits changed, on a channel of its own: keys and configuration are not loaded again for it.
CREATE FUNCTION spillway_notify_circuits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('spillway_circuits', pools.pool_id::text) FROM (SELECT DISTINCT pool_id FROM changed) AS pools;
    RETURN NULL;
END $$;

DO $$
DECLARE
    watched text;
BEGIN
    FOREACH watched IN ARRAY ARRAY['circuit_states', 'circuit_resets'] LOOP
        EXECUTE format('CREATE TRIGGER notify_insert AFTER INSERT ON %I REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION spillway_notify_circuits()', watched);
        EXECUTE format('CREATE TRIGGER notify_update AFTER UPDATE ON %I REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION spillway_notify_circuits()', watched);
        EXECUTE format('CREATE TRIGGER notify_delete AFTER DELETE ON %I REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION spillway_notify_circuits()', watched);
    END LOOP;
END $$;
