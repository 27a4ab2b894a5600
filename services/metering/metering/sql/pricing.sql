-- name: clear_pricing
DELETE FROM api_provider_pricing

-- name: add_price
INSERT INTO api_provider_pricing (provider, model, valid_from, unit, usd_per_unit, source)
VALUES ($1, $2, $3, $4, $5, $6)
