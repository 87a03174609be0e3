"""The operations in Triton, one file each, with the signature and the meaning of the reference beside which they stand.

Nothing here is imported unless tensors lie on a GPU (or a test interprets the kernels). Only what the compilers from
3.6 to 3.9 have in common is used. Sums are float32 and their order depends on a row's own length alone, never on what
else is in the batch. Sizes that vary from step to step are run-time numbers, sizes of the model compile-time ones.
"""
