"""The gate: verdicts with their reasons, cores and plans."""
