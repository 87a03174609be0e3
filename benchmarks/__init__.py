"""Benchmarks: each prints one JSON object and compares it with `targets.toml` (ARCHITECTURE section 12)."""
