"""The manager: a second program that decides what waits for an approval, through the kernel's public API.

    python -m support.manager --kernel NAME --seconds 300

It holds the operator's token (as the person who started the kernel does) and ends when the kernel does.
"""

import argparse
import sys

import anyio

from aios import AiosError, connect_operator
from aios.abi.process import ApprovalInfo
from aios.abi.syscalls import HumanApprove, HumanPending


async def decide(kernel: str, seconds: float) -> int:
    """Approve each waiting call by its digest; return how many."""
    approved = 0
    async with connect_operator(kernel) as operator:
        with anyio.move_on_after(seconds):
            async for waiting in operator.poll(HumanPending(), every_s=0.3):
                for item in (ApprovalInfo.model_validate(entry) for entry in waiting):
                    await operator.call(HumanApprove(approval=item.id, allow=True, digest=item.digest))
                    print(f"manager: approved {item.tool} {item.arguments} of pid {item.pid}", flush=True)
                    approved += 1
    return approved


def main() -> int:
    """Run until the kernel ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--seconds", type=float, default=600.0)
    options = parser.parse_args()
    try:
        anyio.run(decide, options.kernel, options.seconds)
    except AiosError as error:
        print(f"manager: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
