"""The composition root: kernels for programs, and the mains of the other operating-system processes."""

from aios.boot.compose import embedded
from aios.boot.program import connect, run_file

__all__ = ["connect", "embedded", "run_file"]
