-- Messages that could not be handled, kept until somebody decides. The digest makes a repeated one the same letter.
CREATE TABLE dead_letters (
    id              uuid PRIMARY KEY,
    digest          bytea NOT NULL UNIQUE,
    org_id          text,
    source_stream   text,
    source_sequence bigint,
    subject         text NOT NULL,
    payload         bytea NOT NULL,
    reason          text NOT NULL,
    field           text,
    attempts        integer NOT NULL,
    first_seen_at   timestamptz NOT NULL DEFAULT now(),
    status          text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'retried', 'discarded')),
    resolved_at     timestamptz,
    resolved_by     text,
    CHECK ((status = 'open') = (resolved_at IS NULL))
);
CREATE INDEX dead_letters_by_status ON dead_letters (status, id);
