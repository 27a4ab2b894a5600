-- What each consumer has handled, so that a redelivered event changes nothing.
CREATE TABLE inbox (
    consumer text NOT NULL,
    event_id uuid NOT NULL,
    seen_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, event_id)
);
CREATE INDEX inbox_by_age ON inbox (seen_at);

-- Failures that a message itself is to blame for; deliveries that failed because a server was away are not among them.
CREATE TABLE failed_deliveries (
    consumer        text NOT NULL,
    source_stream   text NOT NULL,
    source_sequence bigint NOT NULL,
    attempts        integer NOT NULL,
    failed_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, source_stream, source_sequence)
);
CREATE INDEX failed_deliveries_by_age ON failed_deliveries (failed_at);
