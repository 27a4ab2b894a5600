-- People. Everything personal or secret about them is in these tables and in no event: so it can be erased.
CREATE TABLE users (
    user_id text COLLATE "C" PRIMARY KEY,
    email text COLLATE "C" UNIQUE,
    name text,
    password_hash text,
    is_operator boolean NOT NULL DEFAULT false,
    email_verified_at timestamptz,
    totp_secret bytea,
    totp_enabled_at timestamptz,
    totp_last_step bigint,
    created_at timestamptz NOT NULL,
    erased_at timestamptz,
    CHECK ((erased_at IS NULL) = (email IS NOT NULL))
);
COMMENT ON COLUMN users.email IS 'normalized, lower case; null: erased';
COMMENT ON COLUMN users.totp_secret IS 'sealed; set up, and in force once totp_enabled_at is set';
COMMENT ON COLUMN users.totp_last_step IS 'the time step of the code accepted last: no code is accepted twice';

CREATE TABLE recovery_codes (
    user_id text COLLATE "C" NOT NULL REFERENCES users (user_id),
    digest bytea NOT NULL,
    used_at timestamptz,
    PRIMARY KEY (user_id, digest)
);

-- A session is a family of refresh tokens: each is used once, for the next.
CREATE TABLE sessions (
    session_id text COLLATE "C" PRIMARY KEY,
    user_id text COLLATE "C" NOT NULL REFERENCES users (user_id),
    org_id text COLLATE "C",
    refresh_jti text COLLATE "C" NOT NULL,
    previous_jti text COLLATE "C",
    rotated_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    address text,
    program text,
    ended_at timestamptz,
    ended_because text
);
CREATE INDEX sessions_user_id ON sessions (user_id) WHERE ended_at IS NULL;
CREATE INDEX sessions_expires_at ON sessions (expires_at);
COMMENT ON COLUMN sessions.org_id IS 'the organization that its tokens are for';
COMMENT ON COLUMN sessions.refresh_jti IS 'the one refresh token that is good now';
COMMENT ON COLUMN sessions.previous_jti IS 'the one before it: used again at once it is a second tab, used later a thief';

-- Wrong passwords and codes, by account and by network address; each by a keyed hash, also where no account is.
CREATE TABLE login_failures (
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('account', 'address')),
    digest bytea NOT NULL,
    failures integer NOT NULL,
    last_failed_at timestamptz NOT NULL,
    locked_until timestamptz,
    PRIMARY KEY (kind, digest)
);
CREATE INDEX login_failures_last_failed_at ON login_failures (last_failed_at);

-- Letters to be sent. The secret in a letter is not here: it is made from the id and a key.
CREATE TABLE messages (
    message_id text COLLATE "C" PRIMARY KEY,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('verify_email', 'reset_password', 'invitation')),
    user_id text COLLATE "C" REFERENCES users (user_id),
    org_id text COLLATE "C",
    email text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at timestamptz
);
CREATE INDEX messages_expires_at ON messages (expires_at);
CREATE INDEX messages_email ON messages (email);
COMMENT ON COLUMN messages.user_id IS 'null: an invitation to somebody who may have no account';

-- Requests to reset a password, one row for every address that is typed in, known or not: the answer takes equally long.
CREATE TABLE reset_requests (
    request_id text COLLATE "C" PRIMARY KEY,
    email text COLLATE "C" NOT NULL,
    requested_at timestamptz NOT NULL
);

-- Organizations, from the events of their streams `organization`.
CREATE TABLE organizations (
    org_id text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    slug text COLLATE "C" NOT NULL UNIQUE,
    created_at timestamptz NOT NULL,
    deleted_at timestamptz
);

-- A row outlives the membership: whoever is erased is erased in every organization that they ever were in.
CREATE TABLE members (
    org_id text COLLATE "C" NOT NULL REFERENCES organizations (org_id),
    user_id text COLLATE "C" NOT NULL REFERENCES users (user_id),
    role text COLLATE "C" NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    joined_at timestamptz NOT NULL,
    left_at timestamptz,
    PRIMARY KEY (org_id, user_id)
);
CREATE INDEX members_user_id ON members (user_id, org_id);

CREATE TABLE invitations (
    org_id text COLLATE "C" NOT NULL REFERENCES organizations (org_id),
    invitation_id text COLLATE "C" NOT NULL,
    email text COLLATE "C",
    role text COLLATE "C" NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    invited_by text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    status text COLLATE "C" NOT NULL CHECK (status IN ('open', 'accepted', 'withdrawn')),
    PRIMARY KEY (org_id, invitation_id)
);
COMMENT ON COLUMN invitations.email IS 'null: erased with the person';

-- What billing says of each organization's plan.
CREATE TABLE entitlements (
    org_id text COLLATE "C" PRIMARY KEY,
    revision integer NOT NULL,
    plan_name text NOT NULL,
    seats bigint CHECK (seats >= 0),
    api_access boolean NOT NULL
);
COMMENT ON COLUMN entitlements.seats IS 'null: unlimited';

CREATE TABLE api_keys (
    org_id text COLLATE "C" NOT NULL REFERENCES organizations (org_id),
    key_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL REFERENCES users (user_id),
    name text NOT NULL,
    prefix text COLLATE "C" NOT NULL,
    digest bytea NOT NULL UNIQUE,
    scopes text[] NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    last_used_at timestamptz,
    revoked_at timestamptz,
    PRIMARY KEY (org_id, key_id)
);
CREATE INDEX api_keys_user_id ON api_keys (user_id);
COMMENT ON COLUMN api_keys.digest IS 'SHA-256 of the key, which has 256 random bits';

-- Who did what, for administrators to read. Addresses and programs go when the person is erased.
CREATE TABLE security_events (
    event_id uuid PRIMARY KEY,
    org_id text COLLATE "C",
    user_id text COLLATE "C",
    actor text COLLATE "C",
    action text COLLATE "C" NOT NULL,
    succeeded boolean NOT NULL,
    address text,
    program text,
    detail jsonb NOT NULL,
    occurred_at timestamptz NOT NULL
);
CREATE INDEX security_events_org_id ON security_events (org_id, event_id);
CREATE INDEX security_events_user_id ON security_events (user_id, event_id);
CREATE INDEX security_events_actor ON security_events (actor, event_id);
CREATE INDEX security_events_occurred_at ON security_events (occurred_at);
COMMENT ON COLUMN security_events.user_id IS 'whom it concerns';
COMMENT ON COLUMN security_events.actor IS 'who did it: a user id, an API key''s id, or service:name';
