"""Handlers of syscalls, one module a family. Each takes the kernel's parts, the running call and its model."""
