"""Puts the parts of one kernel together. Starts nothing and reads only the rule files."""

from pathlib import Path

from aios.abi.core import Core
from aios.config import Settings
from aios.errors import RuleError
from aios.kernel.approvals import Approvals
from aios.kernel.commit import Committer, JournalPort
from aios.kernel.contexts import Book
from aios.kernel.credentials import Credentials
from aios.kernel.events import Bus
from aios.kernel.guardian import CompileRules, Guardian
from aios.kernel.parts import Clock, Parts
from aios.kernel.quota import Quotas
from aios.kernel.rights import Rights
from aios.kernel.state import KernelState
from aios.kernel.table import Table
from aios.kernel.tokenlog import TokenLog
from aios.tools.toolbox import Toolbox


def assemble(
    settings: Settings,
    journal: JournalPort,
    core: Core,
    toolbox: Toolbox,
    *,
    compile_rules: CompileRules,
    clock: Clock,
    credentials: Credentials,
) -> Parts:
    """Return the parts of a kernel with an empty state. Raises RuleError."""
    state, bus = KernelState(), Bus(clock.now)
    log, table = Committer(journal, state, clock.now), Table(state, bus)
    guardian = Guardian(compile_rules, [_read(path) for path in settings.rules], state)
    for spec in toolbox.specs():
        guardian.declare(spec)
    return Parts(
        settings=settings,
        clock=clock,
        state=state,
        log=log,
        bus=bus,
        table=table,
        book=Book(core),
        tokens=TokenLog(log, bus),
        guardian=guardian,
        quotas=Quotas(state),
        rights=Rights(state),
        approvals=Approvals(state, log, bus, table, now=clock.now, timeout_s=settings.approval_timeout_s),
        credentials=credentials,
        toolbox=toolbox,
        started_s=clock.now(),
    )


def _read(path: Path) -> tuple[str, str]:
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except OSError as error:
        raise RuleError(f"the rule file cannot be read: {error.strerror}", file=str(path)) from error
