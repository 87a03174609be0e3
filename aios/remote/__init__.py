"""Cores that are somebody else's: any endpoint that speaks the OpenAI chat protocol, behind `aios.abi.core.Core`.

Owns HTTP, streams and their distrust. Does not know the kernel, rules or a model's weights.
"""
