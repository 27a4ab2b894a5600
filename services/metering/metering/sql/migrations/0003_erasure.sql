-- Erasing a person: the one act that may change the log. It says so with `SET LOCAL aragora.erasing = 'on'`, and then
-- may put a pseudonym in the place of an id, and leave out what is free text. Everything else stays refused.
CREATE FUNCTION refuse_change_but_erasing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND current_setting('aragora.erasing', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION '% is append-only: correct a mistake with a new event', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END
$$;

-- Also while somebody erases: nothing that is counted or priced, and no id by which a repeat is known.
CREATE FUNCTION make_usage_append_only(log_table text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE OR REPLACE TRIGGER usage_log_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %I
                    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_but_erasing()', log_table);
    EXECUTE format('CREATE OR REPLACE TRIGGER usage_log_keeps_what_was_used BEFORE UPDATE OF
                    org_id, id, log_month, recorded_at, occurred_at, event_type, provider, model, tokens_in, tokens_out,
                    tokens_cached, tokens_cache_write, tokens_reasoning, tokens_audio_in, tokens_audio_out, requests,
                    searches, images, pages, seconds, cost_usd, price_source, unpriced_reason, debates, api_calls,
                    reservation_id, method, status, response_time_ms ON %I
                    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', log_table);
END $$;

SELECT make_usage_append_only('usage_events');
SELECT make_usage_append_only(child.relname)
FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
WHERE inhparent = 'usage_events'::regclass;

CREATE OR REPLACE FUNCTION make_usage_partition(month date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    name text := 'usage_events_' || to_char(month, 'YYYY_MM');
BEGIN
    IF to_regclass(name) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE usage_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
    EXECUTE format('ALTER TABLE %I ADD CONSTRAINT log_month_is CHECK (log_month = %L)', name, month);
    EXECUTE format('CREATE UNIQUE INDEX %I ON %I (org_id, id)', name || '_org_id_id', name);
    EXECUTE format('CREATE INDEX %I ON %I (org_id, occurred_at)', name || '_org_id_occurred_at', name);
    PERFORM make_usage_append_only(name);
    EXECUTE format('ALTER TABLE usage_events ATTACH PARTITION %I FOR VALUES IN (%L)', name, month);
    EXECUTE format('ALTER TABLE %I DROP CONSTRAINT log_month_is', name);
    RETURN true;
END $$;

-- Who was erased, so that usage of theirs which arrives late goes under the pseudonym too. Known by the hash of the id
-- only, and forgotten once nothing of theirs can be on its way any more: then nothing leads back from the pseudonym.
CREATE TABLE erased_people (
    org_id text COLLATE "C" NOT NULL,
    digest bytea NOT NULL,
    pseudonym text COLLATE "C" NOT NULL,
    erased_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, digest)
);
COMMENT ON COLUMN erased_people.digest IS 'SHA-256 of the id that the person had';
