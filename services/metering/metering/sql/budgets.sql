-- What organizations mean to spend (budgets.py). Whoever compares holds the rows of the months, as for limits.

-- name: exceeded_by_chunk
-- Budgets that the months of the chunk's usage exceed, and of which that was not said yet: the organization's, and those of
-- people who spent something. (The OR keeps the look at people a hash table, made only where somebody has a budget. What an
-- organization spent is not asked of the function, whose call takes ten times as long as the look.)
SELECT u.org_id, b.budget_id, u.month
FROM (SELECT DISTINCT org_id, to_char(day, 'YYYY-MM') AS month FROM days_to_fold WHERE cost_usd > 0) AS u
CROSS JOIN LATERAL (
    SELECT budget_id, user_id, amount_usd
    FROM budgets AS known
    WHERE org_id = u.org_id AND from_month <= u.month AND NOT EXISTS (
        SELECT FROM budgets_exceeded AS e
        WHERE e.org_id = known.org_id AND e.budget_id = known.budget_id AND e.month = u.month
            AND e.amount_usd = known.amount_usd
    )
    OFFSET 0
) AS b
WHERE (b.user_id = '' OR (u.org_id, b.user_id) IN (SELECT org_id, user_id FROM days_to_fold WHERE cost_usd > 0))
    AND b.amount_usd < CASE b.user_id
        WHEN '' THEN (SELECT total_cost FROM usage_monthly WHERE org_id = u.org_id AND month = u.month)
        ELSE spent_usd(u.org_id, b.user_id, u.month)
    END

-- name: note_exceeded
-- Of these budgets in these months, those that are exceeded and of which that was not said yet.
WITH exceeded AS MATERIALIZED (
    SELECT b.org_id, b.budget_id, b.user_id, n.month, b.amount_usd, s.spent_usd
    FROM unnest($1::text[], $2::text[], $3::text[]) AS n (org_id, budget_id, month)
    JOIN budgets AS b ON b.org_id = n.org_id AND b.budget_id = n.budget_id AND b.from_month <= n.month
    CROSS JOIN LATERAL (SELECT spent_usd(b.org_id, b.user_id, n.month) AS spent_usd OFFSET 0) AS s
    WHERE s.spent_usd > b.amount_usd
), noted AS (
    INSERT INTO budgets_exceeded (org_id, budget_id, month, amount_usd)
    SELECT org_id, budget_id, month, amount_usd FROM exceeded ORDER BY org_id, budget_id, month
    ON CONFLICT DO NOTHING
    RETURNING org_id, budget_id, month
)
SELECT e.org_id, e.budget_id, e.user_id, e.month, e.amount_usd, e.spent_usd
FROM noted AS n
JOIN exceeded AS e ON e.org_id = n.org_id AND e.budget_id = n.budget_id AND e.month = n.month
ORDER BY e.org_id, e.budget_id, e.month

-- name: forget_exceeded
-- Before it is made, or made somebody else's: nothing was said of that one.
DELETE FROM budgets_exceeded AS e
WHERE e.org_id = $1 AND e.budget_id = $2
    AND NOT EXISTS (SELECT FROM budgets WHERE org_id = $1 AND budget_id = $2 AND user_id = $3)

-- name: keep_budget
INSERT INTO budgets AS b (org_id, budget_id, user_id, amount_usd, from_month)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (org_id, budget_id) DO UPDATE
SET user_id = excluded.user_id, amount_usd = excluded.amount_usd, from_month = excluded.from_month
WHERE b.user_id <> excluded.user_id OR b.amount_usd <> excluded.amount_usd

-- name: count_budgets
SELECT count(*) FROM budgets WHERE org_id = $1

-- name: budgets_of
-- With what is spent of them in the month $2.
SELECT budget_id, user_id, amount_usd, coalesce(spent_usd(org_id, user_id, $2), 0) AS spent_usd
FROM budgets
WHERE org_id = $1 AND ($3::text IS NULL OR budget_id = $3)
ORDER BY budget_id

-- name: drop_budget
WITH forgotten AS (
    DELETE FROM budgets_exceeded WHERE org_id = $1 AND budget_id = $2
)
DELETE FROM budgets WHERE org_id = $1 AND budget_id = $2 RETURNING budget_id

-- name: erase_budgets
-- Of person $2: a budget's id is its maker's own text, and may name the person.
WITH dropped AS (
    DELETE FROM budgets WHERE org_id = ANY ($1::text[]) AND user_id = $2 RETURNING org_id, budget_id
)
DELETE FROM budgets_exceeded AS e USING dropped AS d WHERE e.org_id = d.org_id AND e.budget_id = d.budget_id
