"""The temporal guard: rule files, the monitor that judges calls by them, and the mask that steers decoding.

The kernel's door is `judging.gate.compile_rules`, the engine host's `masking.mask.CallMasks`. Knows no kernel and no
engine. Meaning of every construct: docs/rules.md.
"""
