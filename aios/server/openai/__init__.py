"""The OpenAI door: chat completions and models, over the kernel's syscalls.

Knows the abi and the wire format; knows neither the kernel nor a model. The bearer token is the process.
"""
