-- Plans.

-- name: all_plans
SELECT plan, version, name, rank, price_usd_per_month, seats, features::text, limits::text, trial_days, listed,
       is_default, source, published_at
FROM subscription_plans ORDER BY plan, version

-- name: save_plan
-- A version never changes; announced once more, it is there already.
INSERT INTO subscription_plans (
    plan, version, name, rank, price_usd_per_month, seats, features, limits, trial_days, listed, is_default, source,
    published_at
)
VALUES ($1, $2, $3, $4, $5, $6, $7::text::jsonb, $8::text::jsonb, $9, $10, $11, $12, $13)
ON CONFLICT DO NOTHING

-- name: catalog_plans
-- Plans that the catalog ever published, gone or not.
SELECT DISTINCT plan FROM subscription_plans WHERE source = 'catalog' ORDER BY plan

-- Subscriptions.

-- name: save_subscription
INSERT INTO subscriptions (
    org_id, plan, plan_version, status, trial_ends_at, comp_until, pending_plan, pending_version, pending_at, due_at,
    revision, payment_reference
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
ON CONFLICT (org_id) DO UPDATE SET
    plan = excluded.plan, plan_version = excluded.plan_version, status = excluded.status,
    trial_ends_at = excluded.trial_ends_at, comp_until = excluded.comp_until, pending_plan = excluded.pending_plan,
    pending_version = excluded.pending_version, pending_at = excluded.pending_at, due_at = excluded.due_at,
    revision = excluded.revision, payment_reference = excluded.payment_reference

-- name: subscription_of
SELECT org_id, plan, plan_version, status, trial_ends_at, comp_until, pending_plan, pending_version, pending_at,
       payment_reference
FROM subscriptions WHERE org_id = $1

-- name: due_organizations
SELECT org_id FROM subscriptions WHERE due_at <= $1 ORDER BY due_at, org_id LIMIT $2

-- name: organizations_after
-- A page of all organizations, in the order of their ids.
SELECT org_id FROM subscriptions WHERE org_id > $1 ORDER BY org_id LIMIT $2

-- Members.

-- name: save_member
-- What happened earlier changes nothing when it comes later, and who was erased does not come back.
INSERT INTO organization_members AS m (org_id, user_id, is_member, changed_at, changed_by)
SELECT $1, $2, $3, $4, $5
WHERE NOT EXISTS (SELECT FROM erased_people WHERE digest = sha256(convert_to($2, 'UTF8')))
ON CONFLICT (org_id, user_id) DO UPDATE SET
    is_member = excluded.is_member, changed_at = excluded.changed_at, changed_by = excluded.changed_by
WHERE (m.changed_at, m.changed_by) < (excluded.changed_at, excluded.changed_by)

-- name: hold_members
-- Waits for those who are saving members, and lets nobody save one meanwhile.
LOCK TABLE organization_members IN SHARE ROW EXCLUSIVE MODE

-- name: note_erased
INSERT INTO erased_people (digest, erased_at) VALUES (sha256(convert_to($1, 'UTF8')), $2) ON CONFLICT DO NOTHING

-- name: erase_member
DELETE FROM organization_members WHERE org_id = ANY ($2::text[]) AND user_id = $1

-- name: forget_erased
DELETE FROM erased_people WHERE erased_at < $1

-- name: close_organization
INSERT INTO closed_organizations (org_id, closed_at) VALUES ($1, $2) ON CONFLICT DO NOTHING

-- name: organizations_of_user
SELECT org_id FROM organization_members AS m
WHERE user_id = $1 AND is_member AND NOT EXISTS (SELECT FROM closed_organizations AS c WHERE c.org_id = m.org_id)
ORDER BY org_id
LIMIT 2
