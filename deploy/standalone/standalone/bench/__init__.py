"""`aragora bench`: how fast the platform is on this machine, beside what raw Postgres can do on it in the same run."""
