"""Host memory that a GPU reads and writes by itself, so that a copy needs no processor and runs beside the step.

torch's own pinned allocations are rounded up to a power of two, which would waste up to half of a large pool. Here
plain memory is registered with the driver, to the byte.
"""

import weakref

import torch
from torch import Tensor


def pin(memory: Tensor, owner: object) -> None:
    """Pin a contiguous tensor of the host until `owner` is gone. Raises RuntimeError.

    Every page of it is touched now: some tenths of a second a gigabyte.
    """
    num_bytes = memory.numel() * memory.element_size()
    code = int(torch.cuda.cudart().cudaHostRegister(memory.data_ptr(), num_bytes, 0))  # type: ignore[no-untyped-call]
    if code:
        raise RuntimeError(
            f"the driver cannot pin {num_bytes} bytes of host memory (error {code}); try fewer host_pages"
        )
    # memory that is given back while it is registered would be written by the device in somebody else's hands
    weakref.finalize(owner, _unpin, memory).atexit = False


def _unpin(memory: Tensor) -> None:
    torch.cuda.cudart().cudaHostUnregister(memory.data_ptr())  # type: ignore[no-untyped-call]
