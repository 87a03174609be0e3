"""The composition root: kernels for programs, and the mains of the other operating-system processes.

Loads nothing: the engine host starts without what only a kernel needs.
"""
