"""Fused operations for the CPU in C++: a whole forward step in one call, with weights in the form that vectors want.

Optional: `build` makes a library where a compiler is found, `library` loads it, and whatever uses it has a torch form
beside it. Every result is row-invariant: a row's bits do not depend on the number of rows, on its place among them, on
how a prompt was cut into chunks, nor on the number of threads.
"""
