"""One result against another on a field: fates, scores, maps, sweeps, and what is written of it."""
