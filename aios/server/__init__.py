"""The kernel's HTTP door: syscalls, streams and events over a socket.

Knows the abi and a `Doorkeeper`; knows neither the kernel behind it nor any model.
"""
