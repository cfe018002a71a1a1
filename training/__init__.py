"""From tagged recordings to bundles. Today: feature files, made as the daemon makes features."""
