"""The bus, operated: what its servers are told, its topology, its backups."""
