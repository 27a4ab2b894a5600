-- Who wants what how (preferences.py).

-- name: choices_of
-- Those of an organization and of one of its people; an empty user_id is the organization.
SELECT user_id, kind, email, in_app FROM notification_preferences WHERE org_id = $1 AND user_id IN ('', $2)

-- name: choose
INSERT INTO notification_preferences (org_id, user_id, kind, email, in_app, changed_at)
SELECT $1, $2, kind, email, in_app, $6
FROM unnest($3::text[], $4::text[], $5::boolean[]) AS n (kind, email, in_app)
WHERE NOT EXISTS (SELECT FROM erased_people WHERE user_id = $2)
ON CONFLICT (org_id, user_id, kind)
DO UPDATE SET email = excluded.email, in_app = excluded.in_app, changed_at = excluded.changed_at
