-- What people are shown (alerts.py), also live (alert_following.py), and what is asked on the bus (alert_questions.py).
-- Most begin with who reads: $1 organization, $2 person, $3 as an owner or admin, $4 in person, $5 kinds nobody hides.

-- name: alerts_page
WITH found AS (
    (SELECT org_id, alert_id, position, read_at FROM organization_alerts($1, $2, $3, $5)
     WHERE ($6::bigint IS NULL OR position < $6) AND ($7::text IS NULL OR kind = $7)
       AND ($8::text IS NULL OR severity = $8) AND (NOT $9::boolean OR read_at IS NULL)
     ORDER BY position DESC LIMIT $10)
    UNION ALL
    (SELECT org_id, alert_id, position, read_at FROM personal_alerts($2)
     WHERE $4 AND ($6::bigint IS NULL OR position < $6) AND ($7::text IS NULL OR kind = $7)
       AND ($8::text IS NULL OR severity = $8) AND (NOT $9::boolean OR read_at IS NULL)
     ORDER BY position DESC LIMIT $10)
    ORDER BY position DESC LIMIT $10
)
SELECT a.org_id, a.alert_id, a.position, a.kind, a.severity, a.title, a.message, a.facts, a.place,
       a.threshold_percentage, a.provider, a.meter, a.billing_period, a.created_at, f.read_at
FROM found f JOIN usage_alerts a ON a.org_id = f.org_id AND a.alert_id = f.alert_id
ORDER BY a.position DESC

-- name: count_alerts
SELECT (SELECT count(*) FROM organization_alerts($1, $2, $3, $5)
        WHERE ($6::text IS NULL OR kind = $6) AND ($7::text IS NULL OR severity = $7)
          AND (NOT $8::boolean OR read_at IS NULL))
     + (SELECT count(*) FROM personal_alerts($2)
        WHERE $4 AND ($6::text IS NULL OR kind = $6) AND ($7::text IS NULL OR severity = $7)
          AND (NOT $8::boolean OR read_at IS NULL)) AS total

-- name: newest_position
SELECT greatest(
    (SELECT position FROM organization_alerts($1, $2, $3, $5) ORDER BY position DESC LIMIT 1),
    (SELECT position FROM personal_alerts($2) WHERE $4 ORDER BY position DESC LIMIT 1)
) AS position

-- name: alerts_after
-- Of many readers, each from a position of their own; `n` is the reader's place in the question.
SELECT r.n, a.org_id, a.alert_id, a.position, a.kind, a.severity, a.title, a.message, a.facts, a.place,
       a.threshold_percentage, a.provider, a.meter, a.billing_period, a.created_at, f.read_at
FROM unnest($1::text[], $2::text[], $3::boolean[], $4::boolean[], $5::bigint[])
     WITH ORDINALITY AS r (org_id, user_id, administers, in_person, after, n)
CROSS JOIN LATERAL (
    (SELECT org_id, alert_id, position, read_at
     FROM organization_alerts(r.org_id, r.user_id, r.administers, $6)
     WHERE position > r.after ORDER BY position LIMIT $7)
    UNION ALL
    (SELECT org_id, alert_id, position, read_at
     FROM personal_alerts(r.user_id)
     WHERE r.in_person AND position > r.after ORDER BY position LIMIT $7)
    ORDER BY position LIMIT $7
) f
JOIN usage_alerts a ON a.org_id = f.org_id AND a.alert_id = f.alert_id
ORDER BY r.n, a.position

-- name: count_unread
-- Of many readers. Whoever is not said to administer does if the copy of auth's word on members says so. What was marked
-- as read all at once is not looked at.
SELECT r.n,
       (SELECT count(*)
        FROM organization_alerts(
            r.org_id, r.user_id, coalesce(r.administers, c.role IN ('owner', 'admin'), false), $5
        )
        WHERE position > coalesce(m.read_through, 0) AND read_at IS NULL)
     + (SELECT count(*)
        FROM personal_alerts(r.user_id)
        WHERE r.in_person AND position > coalesce(p.read_through, 0) AND read_at IS NULL) AS unread
FROM unnest($1::text[], $2::text[], $3::boolean[], $4::boolean[])
     WITH ORDINALITY AS r (org_id, user_id, administers, in_person, n)
LEFT JOIN alert_marks m ON m.org_id = r.org_id AND m.user_id = r.user_id
LEFT JOIN alert_marks p ON p.org_id = 'platform' AND p.user_id = r.user_id
LEFT JOIN contacts c ON c.org_id = r.org_id AND c.user_id = r.user_id
ORDER BY r.n

-- name: mark_read
WITH shown AS (
    SELECT org_id, alert_id, read_at FROM organization_alerts($1, $2, $3, $5) WHERE alert_id = $6
    UNION ALL
    SELECT org_id, alert_id, read_at FROM personal_alerts($2) WHERE $4 AND alert_id = $6
), marked AS (
    INSERT INTO alert_reads (org_id, user_id, alert_id, read_at)
    SELECT org_id, $2, alert_id, $7 FROM shown
    WHERE read_at IS NULL AND NOT EXISTS (SELECT FROM erased_people WHERE user_id = $2)
    ON CONFLICT (org_id, user_id, alert_id) DO NOTHING
    RETURNING org_id
), told AS (
    SELECT count(pg_notify('alert_reads', $2)) AS times FROM marked
)
SELECT coalesce(s.read_at, $7) AS read_at FROM shown s CROSS JOIN told

-- name: mark_all_read
WITH unread AS (
    SELECT org_id, position FROM organization_alerts($1, $2, $3, $5) WHERE read_at IS NULL
    UNION ALL
    SELECT org_id, position FROM personal_alerts($2) WHERE $4 AND read_at IS NULL
), marked AS (
    INSERT INTO alert_marks AS m (org_id, user_id, read_through, read_at)
    SELECT org_id, $2, max(position), $6 FROM unread
    WHERE NOT EXISTS (SELECT FROM erased_people WHERE user_id = $2)
    GROUP BY org_id
    ON CONFLICT (org_id, user_id) DO UPDATE SET read_through = excluded.read_through, read_at = excluded.read_at
    WHERE m.read_through < excluded.read_through
    RETURNING org_id
), told AS (
    SELECT count(pg_notify('alert_reads', $2)) AS times FROM marked
)
SELECT count(u.position) AS marked FROM told LEFT JOIN unread u ON true

-- name: attention_page
SELECT org_id, alert_id, position, kind, severity, title, message, facts, place, threshold_percentage, provider, meter,
       billing_period, created_at
FROM usage_alerts
WHERE audience = 'operators' AND ($1::bigint IS NULL OR position < $1)
ORDER BY position DESC
LIMIT $2
