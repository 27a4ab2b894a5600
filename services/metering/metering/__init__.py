"""What was used: ingest, rating, projections and the reading of usage."""
