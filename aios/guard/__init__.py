"""The temporal guard: rule files, the monitor that judges calls by them, and the mask that steers decoding.

`gate.compile_rules` is the door of the kernel, `mask.CallMasks` that of the engine host. Knows no kernel, no engine.
Meaning of every construct: docs/rules.md.
"""
