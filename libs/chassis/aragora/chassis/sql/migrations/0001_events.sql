-- The event store. `org_id` leads every key, so that the tables can be distributed by it.
CREATE TABLE events (
    position       bigint GENERATED ALWAYS AS IDENTITY,
    id             uuid NOT NULL,
    org_id         text NOT NULL,
    stream         text NOT NULL,
    version        integer NOT NULL CHECK (version > 0),
    type           text NOT NULL,
    data           jsonb NOT NULL,
    occurred_at    timestamptz NOT NULL,
    recorded_at    timestamptz NOT NULL DEFAULT now(),
    correlation_id text NOT NULL,
    causation_id   text,
    PRIMARY KEY (org_id, position),
    CONSTRAINT events_stream_version UNIQUE (org_id, stream, version),
    UNIQUE (org_id, id)
);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: correct a mistake with a new event', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER events_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What the relay has still to publish.
CREATE TABLE outbox (
    org_id   text NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (org_id, position),
    FOREIGN KEY (org_id, position) REFERENCES events (org_id, position)
);
CREATE INDEX outbox_in_order ON outbox (position);
