-- Days that are not like the others (housekeeping.py, anomalies.py).

-- name: begin_look
-- Whoever gets the row looks, until the commit; nobody waits for it. The answer is when somebody looked before.
WITH due AS (
    SELECT looked_at FROM anomaly_looks WHERE looked_at <= $2 FOR UPDATE SKIP LOCKED
)
UPDATE anomaly_looks AS l SET looked_at = $1 FROM due RETURNING due.looked_at

-- name: busy_days
-- Organizations whose day $1 is above one of the floors ($3 USD, $4 calls), beside the median of those of the $2 days
-- before it that had any of the meter: the lower one of two. Not those of which it was said. By index throughout: from an
-- organization's month to its day, and only if that is busy to the days before.
SELECT m.org_id, q.meter, q.used, q.usual, q.days
FROM usage_monthly AS m
CROSS JOIN LATERAL (
    SELECT sum(cost_usd) AS cost_usd, sum(api_calls) AS api_calls
    FROM usage_daily
    WHERE org_id = m.org_id AND day = $1::date
    OFFSET 0
) AS d
CROSS JOIN LATERAL (
    SELECT
        percentile_disc(0.5) WITHIN GROUP (ORDER BY cost_usd) FILTER (WHERE cost_usd > 0) AS cost_usd,
        count(*) FILTER (WHERE cost_usd > 0) AS cost_days,
        percentile_disc(0.5) WITHIN GROUP (ORDER BY api_calls) FILTER (WHERE api_calls > 0) AS api_calls,
        count(*) FILTER (WHERE api_calls > 0) AS call_days
    FROM (
        SELECT sum(cost_usd) AS cost_usd, sum(api_calls) AS api_calls
        FROM usage_daily
        WHERE org_id = m.org_id AND day >= $1::date - $2::integer AND day < $1::date
        GROUP BY day
    ) AS days
    OFFSET 0
) AS h
CROSS JOIN LATERAL (
    VALUES ('cost_usd', d.cost_usd, h.cost_usd, h.cost_days), ('api_calls', d.api_calls, h.api_calls, h.call_days)
) AS q (meter, used, usual, days)
WHERE m.month = to_char($1::date, 'YYYY-MM') AND (d.cost_usd > $3 OR d.api_calls > $4) AND q.days > 0
    AND NOT EXISTS (SELECT FROM usage_anomalies WHERE org_id = m.org_id AND day = $1::date AND meter = q.meter)

-- name: note_anomalies
INSERT INTO usage_anomalies (org_id, day, meter)
SELECT org_id, day, meter FROM unnest($1::text[], $2::date[], $3::text[]) AS n (org_id, day, meter)
ORDER BY org_id, day, meter
