-- Organizations that were closed: they are nobody's any more, whatever comes late about their members.
CREATE TABLE closed_organizations (
    org_id text COLLATE "C" PRIMARY KEY,
    closed_at timestamptz NOT NULL
);

-- People who were erased, so that what comes late does not bring them back. Forgotten when nothing can come any more.
CREATE TABLE erased_people (
    digest bytea PRIMARY KEY,
    erased_at timestamptz NOT NULL
);
COMMENT ON COLUMN erased_people.digest IS 'SHA-256 of the id that the person had';
