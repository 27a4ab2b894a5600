"""Who you are: users, organizations, tokens, API keys, revocation."""
