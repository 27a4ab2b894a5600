"""What is owed: plans, subscriptions, entitlements."""
