"""The parts of `benchmarks.gpu_suite`, one file each."""
