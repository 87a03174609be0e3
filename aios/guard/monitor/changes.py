"""How registers and relations change at an event, and what the answers of outstanding calls may change.

RULES.md S1, S2, S5.

All new values are computed from the old ones before any is stored.
"""

from dataclasses import dataclass, field
from typing import Any

from aios.guard.language.values import UNKNOWN, Truth, hashed, join, same
from aios.guard.monitor.evaluate import hashed_key
from aios.guard.monitor.facts import FURTHER, Cells, Extension, Facts, Frame, Happening, Rows
from aios.guard.monitor.program import Clause, Program, Store


@dataclass(slots=True)
class Effect:
    """What one clause does: values by hashed key. `sure` is the truth of its match and condition."""

    sure: Truth
    values: dict[tuple[Any, ...], tuple[tuple[Any, ...], list[Any]]] = field(default_factory=dict)
    anywhere: bool = False
    """A key is unknown."""
    doubtful: set[tuple[Any, ...]] = field(default_factory=set)
    """Keys of a register that only elements set of which nobody knows whether `if` holds."""


def revise(program: Program, frame: Frame) -> None:
    """Bring all registers and relations of the frame's scopes to the state after its event."""
    pending, event = [], frame.event
    assert event is not None
    for store, clauses in program.listening(event.kind, event.tool):
        effects = _effects(store, clauses, frame, first=not store.is_relation)
        pending.append((store, frame.facts(store.shared), effects))
    for store, facts, effects in pending:
        if effects and store.is_relation:
            _add(facts.rows[store.name], effects, replaces=store.is_latest)
        elif effects:
            _set(facts.cells[store.name], effects)


def _effects(store: Store, clauses: tuple[Clause, ...], frame: Frame, *, first: bool) -> list[Effect]:
    """What the clauses do that match, or may match; `first`: up to the first that certainly does."""
    found = []
    for clause in clauses:
        frame.env = {}
        effect = _effect(store, clause, frame)
        if effect is not None:
            found.append(effect)
            if first and effect.sure:
                break
    return found


def _effect(store: Store, clause: Clause, frame: Frame) -> Effect | None:
    matched = clause.binds(frame)
    if matched is False:
        return None
    effect = Effect(matched)
    if clause.domain is None:
        return _apply(store, clause, frame, effect)
    return _each(store, clause, frame, effect)


def _apply(store: Store, clause: Clause, frame: Frame, effect: Effect) -> Effect | None:
    held = True if clause.guard is None else clause.guard(frame)
    if held is False:
        return None
    if held is None:
        effect.sure = None
    _enter(effect, _key(clause, frame), _value(store, clause, frame))
    return effect


def _each(store: Store, clause: Clause, frame: Frame, effect: Effect) -> Effect | None:
    assert clause.domain is not None and clause.each is not None
    items = clause.domain(frame)
    if isinstance(items, dict):
        items = list(items.values())
    frame.env[clause.each] = UNKNOWN
    held = True if clause.guard is None else clause.guard(frame)
    if held is False:
        return None
    if held is None:
        effect.sure = None
    if store.is_relation:  # also when the list is empty: the event replaces the rows of its key
        _enter(effect, _key(clause, frame))
    if not isinstance(items, list):
        effect.sure, effect.anywhere = None, not store.is_relation
        return effect
    for item in items:
        frame.env[clause.each] = item
        _item(store, clause, frame, effect)
    return effect


def _item(store: Store, clause: Clause, frame: Frame, effect: Effect) -> None:
    held = True if clause.chooses is None else clause.chooses(frame)
    if held is False:
        return
    if held is None and store.is_relation:
        effect.sure = None
    _enter(effect, _key(clause, frame), _value(store, clause, frame), is_doubtful=held is None)


def _key(clause: Clause, frame: Frame) -> tuple[Any, ...]:
    return tuple([key(frame) for key in clause.keys])


def _value(store: Store, clause: Clause, frame: Frame) -> Any:
    if store.is_relation:
        return tuple([term(frame) for term in clause.terms])
    return store.read(clause.terms[0](frame))


def _enter(effect: Effect, key: tuple[Any, ...], *values: Any, is_doubtful: bool = False) -> None:
    if UNKNOWN in key:
        effect.anywhere = True
        return
    place = hashed_key(key)
    if not is_doubtful:
        effect.doubtful.discard(place)
    elif place not in effect.values:
        effect.doubtful.add(place)
    effect.values.setdefault(place, (key, []))[1].extend(values)


# --- registers -----------------------------------------------------------------------------------------------------


def _outcome(cells: Cells, effects: list[Effect]) -> tuple[bool, dict[tuple[Any, ...], tuple[tuple[Any, ...], Any]]]:
    """Return whether any key may have changed, and the joined new value of each key touched."""
    anywhere = any(effect.anywhere for effect in effects)
    certain = effects[-1].sure is True
    new: dict[tuple[Any, ...], tuple[tuple[Any, ...], Any]] = {}
    for place, key in {place: key for effect in effects for place, (key, _) in effect.values.items()}.items():
        old = cells.rows[place][1] if place in cells.rows else cells.default
        possible = [] if certain else [old]
        for effect in effects:
            possible += effect.values[place][1] if place in effect.values else [old]
            possible += [old] if place in effect.doubtful else []
        new[place] = (key, join(possible))
    return anywhere, new


def _set(cells: Cells, effects: list[Effect]) -> None:
    anywhere, new = _outcome(cells, effects)
    if anywhere:
        cells.default = UNKNOWN
        cells.rows = {}
        new = {place: entry for place, entry in new.items() if all(not effect.anywhere for effect in effects)}
    cells.rows.update(new)


# --- relations -----------------------------------------------------------------------------------------------------


def _add(rows: Rows, effects: list[Effect], *, replaces: bool) -> None:
    for effect in effects:
        if effect.anywhere or (effect.sure is None and not effect.values):
            _doubt_all(rows)
    deleted = {place for effect in effects if effect.sure and replaces for place in effect.values}
    for place in deleted:
        rows.buckets.pop(place, None)
        rows.open.discard(place)
    for effect in effects:
        for place, (_, values) in effect.values.items():
            if not effect.sure and replaces:
                _doubt(rows, place)
            elif not effect.sure:  # nothing deletes rows here, so those that are certain stay certain
                rows.open.add(place)
            bucket = rows.buckets.setdefault(place, {})
            for value in values:
                key = tuple(map(_cell_key, value))
                was_sure = key in bucket and bucket[key][1]
                bucket[key] = (value, was_sure or effect.sure is True)


def _cell_key(value: Any) -> Any:
    return value if value is UNKNOWN else hashed(value)


def _doubt(rows: Rows, place: tuple[Any, ...]) -> None:
    rows.open.add(place)
    bucket = rows.buckets.get(place, {})
    for key, (row, _) in bucket.items():
        bucket[key] = (row, False)


def _doubt_all(rows: Rows) -> None:
    for place in rows.buckets:
        _doubt(rows, place)
    rows.open.add(None)


# --- outstanding calls ---------------------------------------------------------------------------------------------


def extend(program: Program, facts: Facts, shared: Facts, above: Extension | None, *, is_shared: bool) -> Extension:
    """Find what the answers of outstanding calls may change, by repeating them until nothing more does."""
    extension = Extension([_maybe(entry.call) for entry in facts.outstanding.values()])
    own_extension, shared_extension = (None, extension) if is_shared else (extension, above)
    before = -1
    while before != (before := _size(extension)):
        for event in extension.events:
            frame = Frame(
                {}, facts, shared, event.time, event, True, 0, "", own_extension, shared_extension
            )  # fmt: skip
            for store, clauses in program.listening("maybe", event.tool):
                if store.shared is is_shared:
                    _disturb(store, clauses, facts, frame, extension)
    return extension


def _size(extension: Extension) -> int:
    return sum(map(len, extension.cells.values())) + sum(map(len, extension.rows.values()))


def _maybe(call: Happening) -> Happening:
    return Happening(call.seq, "maybe", call.tool, call.args, call.time, UNKNOWN, call.digest)


def _disturb(store: Store, clauses: tuple[Clause, ...], facts: Facts, frame: Frame, extension: Extension) -> None:
    effects = _effects(store, clauses, frame, first=False)
    if not effects:
        return
    if store.is_relation:
        doubted = extension.rows.setdefault(store.name, set())
        if not store.is_latest:
            doubted.add(FURTHER)
            return
        doubted |= {place for effect in effects for place in effect.values}
        if not doubted or any(effect.anywhere for effect in effects):
            doubted.add(None)
        return
    anywhere, new = _outcome(facts.cells[store.name], effects)
    changed = extension.cells.setdefault(store.name, set())
    cells = facts.cells[store.name]
    changed |= {place for place, (_, value) in new.items() if not _stays(cells, place, value)}
    if anywhere:
        changed.add(None)


def _stays(cells: Cells, place: tuple[Any, ...], value: Any) -> bool:
    old = cells.rows[place][1] if place in cells.rows else cells.default
    return same(old, value) is True or (old is UNKNOWN and value is UNKNOWN)
