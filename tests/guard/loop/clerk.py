"""The second program: answers for the customers what waits for a confirmation, three times out of four with yes.

python -m tests.guard.loop.clerk KERNEL SEED
"""

import sys
from random import Random

import anyio

from aios import AiosError, connect_operator
from aios.abi.process import ApprovalInfo
from aios.abi.syscalls import HumanApprove, HumanPending


async def decide(kernel: str, seed: int) -> None:
    """Decide each waiting call by its digest until the kernel ends."""
    async with connect_operator(kernel) as operator:
        async for waiting in operator.poll(HumanPending(), every_s=0.02):
            for item in (ApprovalInfo.model_validate(entry) for entry in waiting or ()):
                allow = Random(f"{seed} {item.digest}").random() < 0.75
                await operator.call(HumanApprove(approval=item.id, allow=allow, digest=item.digest))


if __name__ == "__main__":
    try:
        anyio.run(decide, sys.argv[1], int(sys.argv[2]))
    except AiosError:
        sys.exit(0)
