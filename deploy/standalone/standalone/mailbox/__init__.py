"""A mail server for one machine: it keeps every letter that it gets, shows it in a browser, and delivers none."""
