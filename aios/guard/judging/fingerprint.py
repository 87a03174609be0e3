"""When two states of a search are the same: what rules can tell apart of them.

Numbers of events are replaced by their order where only that matters. Two states with one fingerprint have the same
continuations; states with different ones may have too.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from aios.guard.language.values import UNKNOWN
from aios.guard.monitor.facts import Facts, Happening
from aios.guard.monitor.layers import Layer
from aios.guard.monitor.monitor import SHARED
from aios.guard.monitor.tables import Branch

if TYPE_CHECKING:
    from aios.guard.judging.gate import RuleGate


def fingerprint(gate: "RuleGate", pid: int, *, counts_calls: bool) -> str:
    """Return the state of a process and of what is shared, as a text to compare.

    `counts_calls`: whether some rule has a window in calls, so that the number of starts matters.
    """
    own, shared = gate.monitor.facts(pid), gate.monitor.facts(SHARED)
    return repr((_facts(own, counts_calls), _facts(shared, counts_calls), gate.now))


def _facts(facts: Facts, counts_calls: bool) -> Any:
    """Only what differs from the base where there are layers: all states of a search share it."""
    return (
        facts.starts if counts_calls else 0,
        facts.finished,
        _plain(facts.cells),
        _plain(facts.rows),
        _plain(facts.nodes),
        _plain(facts.charges),
        _plain(facts.wild),
        _plain(facts.confirmations),
        [
            (one.call.tool, _plain(one.call.args), one.lost, one.number * counts_calls)
            for one in facts.outstanding.values()
        ],
        [
            (duty.rule, duty.pid, duty.time, duty.starts * counts_calls, duty.late, _plain(duty.env))
            for duty in facts.duties
        ],
        _happened(facts.last),
    )


def _happened(event: Happening | None) -> Any:
    return None if event is None else (event.kind, event.tool, _plain(event.args), _plain(event.result))


def _plain(value: Any) -> Any:
    if value is None or value is UNKNOWN or isinstance(value, bool | int | str | float | Decimal):
        return value
    if isinstance(value, Layer):
        return sorted(((repr(key), _plain(item)) for key, item in value.changes().items()), key=repr)
    if isinstance(value, Mapping):
        return sorted(((repr(key), _plain(item)) for key, item in value.items()), key=repr)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    if isinstance(value, Branch):
        return [_plain(value.default), _plain(value.unknown), _plain(value.rows)]
    names = [part.name for part in fields(value)] if is_dataclass(value) else value.__slots__
    return [_plain(getattr(value, name)) for name in names if name not in ("seqs", "seq")]
