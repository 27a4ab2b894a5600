"""Who must know: alerts, e-mail, signed webhooks."""
