"""What all sides share: syscalls, replies, events, orders to a core, and the Protocols between floors.

Owns types only. No behaviour beyond validation and derived properties; no I/O; imports nothing above it.
"""
