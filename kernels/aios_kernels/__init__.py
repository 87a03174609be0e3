"""Operations on the device: normalisation, rotation, attention over pages, products with packed weights.

One file an operation. The public function of each file is the seam: it states shapes and meaning, has a torch
implementation that runs anywhere, and is the one place where another implementation may be chosen by device.
Knows nothing of models, contexts or schedulers.
"""
