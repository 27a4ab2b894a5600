-- A worker shows that it is there by an advisory lock that its session holds: what a worker has claimed that is no longer
-- there is anybody's.
CREATE FUNCTION worker_key(worker uuid) RETURNS bigint LANGUAGE sql IMMUTABLE
RETURN hashtextextended(worker::text, 0);
CREATE VIEW present_workers AS
SELECT (classid::bigint << 32) | objid::bigint AS key
FROM pg_locks
WHERE locktype = 'advisory' AND objsubid = 1 AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database());

-- What people are shown in the product: one row per event, of which it has the id. Nothing in it is personal.
CREATE TABLE usage_alerts (
    org_id text COLLATE "C" NOT NULL,
    alert_id uuid NOT NULL,
    position bigint GENERATED ALWAYS AS IDENTITY,
    kind text COLLATE "C" NOT NULL,
    audience text COLLATE "C" NOT NULL CHECK (audience IN ('everybody', 'administrators', 'person', 'operators')),
    user_id text COLLATE "C",
    severity text COLLATE "C" NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    title text NOT NULL,
    message text NOT NULL,
    facts jsonb NOT NULL,
    place text NOT NULL,
    threshold_percentage integer CHECK (threshold_percentage BETWEEN 1 AND 100),
    provider text,
    meter text,
    billing_period text COLLATE "C",
    occurred_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, alert_id),
    CHECK (audience <> 'person' OR user_id IS NOT NULL)
);
CREATE INDEX usage_alerts_position ON usage_alerts (org_id, position)
    INCLUDE (alert_id, kind, audience, user_id, severity);
CREATE INDEX usage_alerts_operators ON usage_alerts (position) WHERE audience = 'operators';
CREATE INDEX usage_alerts_user_id ON usage_alerts (user_id, position) WHERE user_id IS NOT NULL;
CREATE INDEX usage_alerts_created_at ON usage_alerts (created_at);
COMMENT ON COLUMN usage_alerts.position IS 'the order in which alerts were committed: one writer at a time assigns it';
COMMENT ON COLUMN usage_alerts.user_id IS 'whom it concerns; with audience person, who alone sees it';
COMMENT ON COLUMN usage_alerts.org_id IS 'platform: of a person rather than an organization, or for operators';
COMMENT ON COLUMN usage_alerts.facts IS 'label and value, in the order in which they are shown';
COMMENT ON COLUMN usage_alerts.place IS 'where in the product one would go next, such as /billing';

-- What each person has read: single alerts, and everything up to a position.
CREATE TABLE alert_reads (
    org_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    alert_id uuid NOT NULL,
    read_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, user_id, alert_id)
);
CREATE INDEX alert_reads_user_id ON alert_reads (user_id);
CREATE INDEX alert_reads_read_at ON alert_reads (read_at);
CREATE TABLE alert_marks (
    org_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    read_through bigint NOT NULL,
    read_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, user_id)
);
CREATE INDEX alert_marks_user_id ON alert_marks (user_id);

-- Who wants what how. An empty user_id: the organization's choice for all its members who made none.
CREATE TABLE notification_preferences (
    org_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    email text COLLATE "C" CHECK (email IN ('at_once', 'digest', 'off')),
    in_app boolean,
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, user_id, kind)
);
CREATE INDEX notification_preferences_user_id ON notification_preferences (user_id) WHERE user_id <> '';
COMMENT ON COLUMN notification_preferences.email IS 'null: no choice was made';

-- What somebody is shown of an organization's alerts, and since when they have read it: with `personal_alerts`, the one
-- place that says who sees what. `administers`: as an owner or admin. `essential`: kinds that nobody can hide.
CREATE FUNCTION organization_alerts(reader_org_id text, reader_id text, administers boolean, essential text[])
RETURNS TABLE (org_id text, alert_id uuid, "position" bigint, kind text, severity text, read_at timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT a.org_id, a.alert_id, a.position, a.kind, a.severity,
           coalesce(r.read_at, CASE WHEN a.position <= m.read_through THEN m.read_at END)
    FROM usage_alerts a
    LEFT JOIN alert_reads r ON r.org_id = a.org_id AND r.user_id = reader_id AND r.alert_id = a.alert_id
    LEFT JOIN alert_marks m ON m.org_id = reader_org_id AND m.user_id = reader_id
    WHERE a.org_id = reader_org_id
      AND (administers AND a.audience IN ('everybody', 'administrators')
           OR a.audience = 'everybody' AND (a.user_id IS NULL OR a.user_id = reader_id))
      -- Not `<> ALL`, of which the planner thinks that it leaves next to nothing.
      AND coalesce(array_position(ARRAY(
          SELECT p.kind FROM notification_preferences p
          WHERE p.org_id = reader_org_id AND p.user_id IN ('', reader_id) AND p.in_app IS NOT NULL
            AND p.kind <> ALL (essential)
          GROUP BY p.kind HAVING NOT (array_agg(p.in_app ORDER BY p.user_id DESC))[1]
      ), a.kind), 0) < 1
$$;
-- What concerns a person alone, in whichever organization they look.
CREATE FUNCTION personal_alerts(reader_id text)
RETURNS TABLE (org_id text, alert_id uuid, "position" bigint, kind text, severity text, read_at timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT a.org_id, a.alert_id, a.position, a.kind, a.severity,
           coalesce(r.read_at, CASE WHEN a.position <= m.read_through THEN m.read_at END)
    FROM usage_alerts a
    LEFT JOIN alert_reads r ON r.org_id = a.org_id AND r.user_id = reader_id AND r.alert_id = a.alert_id
    LEFT JOIN alert_marks m ON m.org_id = 'platform' AND m.user_id = reader_id
    WHERE a.org_id = 'platform' AND a.audience = 'person' AND a.user_id = reader_id
$$;

-- A copy of what auth says of who belongs where and how they are reached: names and addresses are sealed.
CREATE TABLE directories (
    org_id text COLLATE "C" PRIMARY KEY,
    name bytea,
    asked_at timestamptz,
    changed_at timestamptz,
    closed_at timestamptz
);
COMMENT ON COLUMN directories.asked_at IS 'null: never; before changed_at: to be asked anew';
CREATE TABLE contacts (
    org_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    role text COLLATE "C" NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    email bytea NOT NULL,
    name bytea,
    verified boolean NOT NULL,
    PRIMARY KEY (org_id, user_id)
);
CREATE INDEX contacts_user_id ON contacts (user_id);
CREATE TABLE erased_people (
    user_id text COLLATE "C" PRIMARY KEY,
    erased_at timestamptz NOT NULL
);

-- Addresses that mail servers refused for good, by a keyed hash: nothing is sent there until an operator says so.
CREATE TABLE suppressed_addresses (
    digest bytea PRIMARY KEY,
    reason text COLLATE "C" NOT NULL CHECK (reason IN ('bounced', 'operator')),
    suppressed_at timestamptz NOT NULL
);

-- Alerts whose readers by e-mail are yet to be found.
CREATE TABLE unaddressed_alerts (
    org_id text COLLATE "C" NOT NULL,
    alert_id uuid NOT NULL,
    topic text COLLATE "C",
    topic_rank integer NOT NULL,
    expires_at timestamptz NOT NULL,
    queued_at timestamptz NOT NULL,
    claimed_by uuid,
    claimed_until timestamptz,
    PRIMARY KEY (org_id, alert_id)
);
CREATE INDEX unaddressed_alerts_queued_at ON unaddressed_alerts (queued_at);
CREATE INDEX unaddressed_alerts_claimed_by ON unaddressed_alerts (claimed_by) WHERE claimed_by IS NOT NULL;

-- Mail to be sent: of an alert to one person, or a letter of auth's, which alone knows what it says and to whom.
CREATE TABLE email_deliveries (
    org_id text COLLATE "C" NOT NULL,
    delivery_id uuid NOT NULL,
    event_id uuid NOT NULL,
    kind text COLLATE "C" NOT NULL,
    user_id text COLLATE "C",
    message_id text COLLATE "C",
    mode text COLLATE "C" NOT NULL CHECK (mode IN ('mail', 'digest')),
    status text COLLATE "C" NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'sent', 'failed', 'superseded')),
    topic text COLLATE "C",
    topic_rank integer NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    send_at timestamptz NOT NULL,
    claimed_by uuid,
    claimed_until timestamptz,
    expires_at timestamptz,
    created_at timestamptz NOT NULL,
    finished_at timestamptz,
    reason text COLLATE "C",
    PRIMARY KEY (org_id, delivery_id),
    CHECK ((message_id IS NULL) <> (user_id IS NULL) OR message_id IS NOT NULL)
);
CREATE UNIQUE INDEX email_deliveries_alert ON email_deliveries (org_id, event_id, user_id) WHERE message_id IS NULL;
CREATE UNIQUE INDEX email_deliveries_message_id ON email_deliveries (message_id) WHERE message_id IS NOT NULL;
CREATE INDEX email_deliveries_send_at ON email_deliveries (mode, (message_id IS NULL), send_at)
    WHERE status = 'pending';
CREATE INDEX email_deliveries_user_id ON email_deliveries (user_id, org_id, created_at);
CREATE INDEX email_deliveries_finished_at ON email_deliveries (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX email_deliveries_claimed_by ON email_deliveries (claimed_by) WHERE claimed_by IS NOT NULL;
COMMENT ON COLUMN email_deliveries.topic IS 'mail that still waits gives way to mail of the same topic and a higher rank';
COMMENT ON COLUMN email_deliveries.reason IS 'why it failed, in a word';

-- Where organizations, and the operator as organization platform, want to be told.
CREATE TABLE webhook_endpoints (
    org_id text COLLATE "C" NOT NULL,
    endpoint_id text COLLATE "C" NOT NULL,
    url bytea NOT NULL,
    description text NOT NULL,
    event_types text[] NOT NULL,
    format text COLLATE "C" NOT NULL CHECK (format IN ('standard', 'slack')),
    secret bytea NOT NULL,
    former_secret bytea,
    former_until timestamptz,
    status text COLLATE "C" NOT NULL CHECK (status IN ('enabled', 'disabled')),
    disabled_because text COLLATE "C" CHECK (disabled_because IN ('chosen', 'failing', 'gone')),
    disabled_at timestamptz,
    created_at timestamptz NOT NULL,
    created_by text COLLATE "C" NOT NULL,
    PRIMARY KEY (org_id, endpoint_id)
);
COMMENT ON COLUMN webhook_endpoints.url IS 'sealed: it may hold a secret';
COMMENT ON COLUMN webhook_endpoints.event_types IS 'empty: all';
COMMENT ON COLUMN webhook_endpoints.former_secret IS 'sealed; signs beside the new one until former_until';

-- The lane of each endpoint: messages leave it one at a time and in order.
CREATE TABLE webhook_lanes (
    org_id text COLLATE "C" NOT NULL,
    endpoint_id text COLLATE "C" NOT NULL,
    next_attempt_at timestamptz,
    failures integer NOT NULL DEFAULT 0,
    failing_since timestamptz,
    warned_at timestamptz,
    claimed_by uuid,
    claimed_until timestamptz,
    PRIMARY KEY (org_id, endpoint_id),
    FOREIGN KEY (org_id, endpoint_id) REFERENCES webhook_endpoints (org_id, endpoint_id) ON DELETE CASCADE
);
CREATE INDEX webhook_lanes_well ON webhook_lanes (next_attempt_at) WHERE failures = 0;
CREATE INDEX webhook_lanes_failing ON webhook_lanes (next_attempt_at) WHERE failures > 0;
CREATE INDEX webhook_lanes_claimed_by ON webhook_lanes (claimed_by) WHERE claimed_by IS NOT NULL;
COMMENT ON COLUMN webhook_lanes.next_attempt_at IS 'null: nothing waits';
COMMENT ON COLUMN webhook_lanes.failures IS 'in a row';

CREATE TABLE webhook_deliveries (
    org_id text COLLATE "C" NOT NULL,
    endpoint_id text COLLATE "C" NOT NULL,
    delivery_id uuid NOT NULL,
    position bigint GENERATED ALWAYS AS IDENTITY,
    event_id uuid NOT NULL,
    about_org_id text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    body text NOT NULL,
    status text COLLATE "C" NOT NULL CHECK (status IN ('pending', 'delivered', 'failed', 'skipped')),
    attempts integer NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    finished_at timestamptz,
    PRIMARY KEY (org_id, endpoint_id, delivery_id),
    UNIQUE (org_id, event_id, endpoint_id),
    FOREIGN KEY (org_id, endpoint_id) REFERENCES webhook_endpoints (org_id, endpoint_id) ON DELETE CASCADE
);
-- Without org_id: the planner takes an organization and an endpoint of it for independent, would think that the two lead
-- to one row, and read all of an endpoint's history for a row that the primary key has. Where nothing is joined it knows
-- better, by the statistics.
CREATE STATISTICS webhook_deliveries_lanes (dependencies) ON org_id, endpoint_id FROM webhook_deliveries;
CREATE INDEX webhook_deliveries_waiting ON webhook_deliveries (endpoint_id, position) WHERE status = 'pending';
CREATE INDEX webhook_deliveries_position ON webhook_deliveries (endpoint_id, position);
CREATE INDEX webhook_deliveries_created_at ON webhook_deliveries (created_at);
COMMENT ON COLUMN webhook_deliveries.about_org_id IS 'what the operator is told is about another organization';
COMMENT ON COLUMN webhook_deliveries.status IS 'skipped: the endpoint was disabled, or somebody said so; redeliver sends it';
COMMENT ON COLUMN webhook_deliveries.due_at IS 'since when it is to be delivered: it is given up some days after that';

-- The delivery log: what was sent and what came back.
CREATE TABLE webhook_attempts (
    org_id text COLLATE "C" NOT NULL,
    endpoint_id text COLLATE "C" NOT NULL,
    delivery_id uuid NOT NULL,
    attempted_at timestamptz NOT NULL,
    milliseconds integer NOT NULL,
    request_headers jsonb NOT NULL,
    status_code integer,
    answer text,
    failure text,
    PRIMARY KEY (org_id, endpoint_id, delivery_id, attempted_at),
    FOREIGN KEY (org_id, endpoint_id, delivery_id)
        REFERENCES webhook_deliveries (org_id, endpoint_id, delivery_id) ON DELETE CASCADE
);
COMMENT ON COLUMN webhook_attempts.answer IS 'its beginning; null: there was none';
COMMENT ON COLUMN webhook_attempts.failure IS 'null: it was delivered';
