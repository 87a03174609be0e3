"""`top --once`: the monitor's picture without a screen."""

from tests.cli.conftest import Aios
from tests.cli.living import living_kernel

CORE = {"tokens_per_s": 41.5, "pages_total": 64, "pages_free": 60, "pages_host": 3, "running": 2, "switches": 12}


def test_one_picture_holds_header_processes_and_approvals(aios: Aios) -> None:
    with living_kernel(core=CORE) as living:
        kernel = living.kernel
        living.do(lambda: kernel.ask(kernel.spawn("payer"), "send_money", {"amount": 5}))
        code, out, _err = aios("top", "--once")
    lines = out.splitlines()
    assert code == 0
    assert "echo" in lines[0]
    assert lines[1].startswith("41.5 tok/s  running 2  waiting 0")
    assert lines[2] == "KV pages 4 used  60 free  3 host  0 disk"
    assert lines[4].split()[2] == "payer"
    assert lines[5] == 'approval 1 waits (pid 1): send_money({"amount":5})'
