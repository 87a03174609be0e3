"""`rules replay`, `test`, `check`, `fmt`, `explain`: rule files and traces, without a kernel."""

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from aios.boot.solver import open_solver
from aios.cli import output
from aios.cli.columns import plain
from aios.errors import RuleError, UsageError
from aios.guard.judging.gate import RuleGate, compile_rules
from aios.guard.language.layout import laid_out
from aios.guard.language.symbols import Symbols
from aios.guard.workbench.bounded.questions import EVENTS, Findings, examine
from aios.guard.workbench.bounded.report import as_json, hints, interesting, is_satisfiable, last_of
from aios.guard.workbench.rehearsal import rehearse
from aios.guard.workbench.replay import DENIED, OK, REFUSED, UNREADABLE, Replay, written
from aios.guard.workbench.review import Review, review, v2_refusal
from aios.guard.workbench.traces import Fault

_SILENT_S = 1.0
"""A check that takes no longer tells no progress."""
_WORST = {OK: 0, DENIED: 1, UNREADABLE: 2}


def replay(file: Path, traces: list[Path], *, json: bool, audit: bool, viability: str | None) -> int:
    """Replay traces under a rule file; return the exit code, the worst of all traces."""
    found = _compiled(file, json=json, viability=viability)
    if isinstance(found, int):
        return found
    paths = list(_files(traces))
    is_several = len(traces) > 1 or any(trace.is_dir() for trace in traces)
    code = OK
    for path in paths:
        one = replayed(found, path, audit=audit)
        report = one.report(file.name, path.name if is_several else None)
        print(written(report) if json else "\n".join(_told(path.name, report)), flush=True)
        code = max(code, one.exit_code, key=_WORST.__getitem__)
    return code


def replayed(gate: RuleGate, path: Path, *, audit: bool = False) -> Replay:
    """Replay one trace on a gate of its own."""
    one = Replay(gate.fresh(), is_audit=audit)
    try:
        with path.open("rb") as lines:
            return one.run(lines)
    except OSError as error:
        one.faults.append(Fault(0, "json", f"{path}: {error.strerror or error}"))
        return one


def explain(file: Path, trace: Path) -> int:
    """Tell for every refusal in a trace why it was refused, which events are to blame, and what would help."""
    found = _compiled(file, json=False)
    if isinstance(found, int):
        return found
    one = replayed(found, trace)
    report = one.report(file.name)
    print("\n".join(_explained(report)))
    return one.exit_code


def test(file: Path, *, json: bool) -> int:
    """Run the scenarios of a rule file; return 0 if all hold, 77 if one does not."""
    found = _compiled(file, json=json)
    if isinstance(found, int):
        return found
    results = rehearse(found)
    failures = [failure for _, failure in results if failure is not None]
    if json:
        told = [
            {"scenario": f.scenario, "line": f.at.line, "column": f.at.column, "message": f.message} for f in failures
        ]
        output.as_json({"scenarios": len(results), "failures": told})
        return DENIED if failures else OK
    for scenario, failure in results:
        print(f"{'ok' if failure is None else 'FAILED'}  {plain(scenario.title)}")
        if failure is not None:
            print(f"    {file.name}:{failure.at.line}: {plain(failure.message)}")
    print(f"{len(results)} scenarios, {len(failures)} failed")
    return DENIED if failures else OK


def check(
    file: Path,
    *,
    json: bool,
    viability: str | None,
    is_solved: bool = True,
    timeout_s: float = 20.0,
    events: int = EVENTS,
    examples: Path | None = None,
) -> int:
    """Say all that can be said of a rule file without running it; return 0, or 78 if it has errors.

    With a solver also which runs are possible: for at most `timeout_s`, and up to so many `events`. What it does not
    find in time is told as undecided and changes no exit code.
    """
    text = _text(file)
    found = review(text, file.name, viability)
    runs = _examined(text, file.name, timeout_s, events) if is_solved and found.program is not None else None
    if runs is not None and found.program is not None:
        found.warnings += hints(runs, found.program.symbols, list(found.warnings))
        if examples is not None:
            _keep(runs, examples)
    if json:
        output.as_json(_reviewed(file.name, found, runs))
    else:
        _refuse(found.errors, json=False)
        print("\n".join(_in_words(file.name, found, runs)))
    return REFUSED if found.errors else OK


def _reviewed(name: str, found: Review, runs: Findings | None) -> dict[str, Any]:
    program = found.program
    return {
        "file": name,
        "digest": None if program is None else program.digest,
        "viability": None if program is None else program.viability,
        "errors": [_described(error) for error in found.errors],
        "warnings": [hint._asdict() for hint in found.warnings],
        "duties": [way._asdict() for way in found.duties],
        "not_v2": None if program is None else v2_refusal(program),
        "arguments": found.arguments,
        "runs": None if runs is None or program is None else as_json(runs, program.symbols),
    }


def _in_words(name: str, found: Review, runs: Findings | None) -> Iterator[str]:
    if found.program is None:
        yield f"{name}: {len(found.errors)} errors"
        return
    rules_ = found.program.symbols.rules
    yield f"{name}: {len(rules_)} rules, viability {found.program.viability}, {found.program.digest}"
    for hint in found.warnings:
        yield f"{name}:{hint.line}: {hint.rule}: {hint.code}: {plain(hint.message)}"
    for way in found.duties:
        told = "has a way out that never fails" if way.always_ok else "has no way out that never fails"
        kept = "in the table" if not way.outside else f"outside the table: {plain(way.outside)}"
        yield f"{name}:{way.line}: {way.rule}: {told}; {kept}"
    if found.duties:
        refusal = v2_refusal(found.program)
        yield f"{name}: " + ("may declare viability V2" if refusal is None else f"not V2: {plain(refusal)}")
    for tool, classes in found.arguments.items():
        if classes:
            yield f"  {plain(tool)}: " + ", ".join(f"{plain(arg)} {kind}" for arg, kind in classes.items())
    if runs is not None:
        yield from _runs_in_words(found.program.symbols, runs)


def _runs_in_words(symbols: Symbols, runs: Findings) -> Iterator[str]:
    satisfiable = {True: "satisfiable", False: "not satisfiable", None: "satisfiable or not: undecided"}
    yield (
        f"{satisfiable[is_satisfiable(runs, symbols)]}: {len(runs.compliant)} of {len(symbols.tools)} tools are called "
        f"in compliant runs, {len(runs.forbidden)} of {len(symbols.rules)} rules forbid a run alone"
    )
    best = interesting(runs)
    if best is not None:
        yield "a compliant run:"
        yield from (f"  {plain(line)}" for line in best.lines)
    for rule, run in runs.forbidden.items():
        yield f"'{plain(rule)}' alone forbids {plain(last_of(run))} behind {len(run.lines) - 1} events"
    for one in runs.undecided:
        yield f"undecided: {one.about} {plain(one.name)}: {plain(one.reason)}"
    for fault in runs.faults:
        yield f"INTERNAL ERROR, please report it: {plain(fault)}"


def _examined(text: str, name: str, timeout_s: float, events: int) -> Findings:
    """Look at the runs of a rule file, without viability: the rules alone are asked for."""
    gate = compile_rules(text, file=name, complete=True, viability="V0")
    begun = time.monotonic()

    def progress(what: str) -> None:
        if sys.stderr.isatty() and time.monotonic() - begun > _SILENT_S:
            print(f"\r\x1b[K{what} …", end="", file=sys.stderr, flush=True)

    with open_solver() as solver:
        found = examine(gate, solver, timeout_s=timeout_s, most=events, progress=progress)
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    return found


def _keep(runs: Findings, folder: Path) -> None:
    """Write each run as a trace that `rules replay` takes."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, found in (("compliant", runs.compliant), ("forbidden", runs.forbidden)):
        for name, run in found.items():
            (folder / f"{kind}-{name}.jsonl").write_text("".join(f"{line}\n" for line in run.lines), encoding="utf-8")


def fmt(files: list[Path], *, check: bool) -> int:
    """Lay files out in place; with `check` only name those that are not: 1 if there are some. 78: not a rule file."""
    code = OK
    for file in files:
        text = _text(file)
        try:
            neat = laid_out(text, file.name)
        except RuleError as error:
            _refuse([error], json=False)
            code = REFUSED
            continue
        if neat == text:
            continue
        if check:
            print(f"{file}: not laid out")
            code = max(code, 1)
        else:
            file.write_text(neat, encoding="utf-8", newline="")
    return code


def _compiled(file: Path, *, json: bool, viability: str | None = None) -> RuleGate | int:
    try:
        return compile_rules(_text(file), file=file.name, complete=True, viability=viability)
    except RuleError as error:
        _refuse([error], json=json)
        return REFUSED


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{file}: a rule file is UTF-8 text") from None
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror or error}") from None


def _refuse(errors: Iterable[RuleError], *, json: bool) -> None:
    if json:
        output.as_json({"errors": [_described(error) for error in errors]})
    else:
        for error in errors:
            print(error, file=sys.stderr)


def _described(error: RuleError) -> dict[str, Any]:
    return {
        "file": error.file, "line": error.line, "column": error.column, "code": error.kind, "message": error.message,
    }  # fmt: skip


def _files(traces: Iterable[Path]) -> Iterator[Path]:
    for trace in traces:
        if trace.is_dir():
            yield from sorted(path for path in trace.iterdir() if path.is_file())
        else:
            yield trace


def _told(name: str, report: dict[str, Any]) -> Iterator[str]:
    """One trace in words."""
    summary = report["summary"]
    yield f"{plain(name)}: {summary['judged']} judged, {summary['denied']} denied, {summary['violations']} violations"
    yield from _faults(report)
    for verdict in report["verdicts"]:
        if verdict["verdict"] == "deny":
            yield f"  {verdict['seq']}: {plain(verdict['tool'])} denied by {', '.join(verdict['rules'])}"
    yield from _undone(report)


def _faults(report: dict[str, Any]) -> Iterator[str]:
    for fault in report["errors"]:
        yield f"  line {fault['line']}: {fault['code']}: {plain(fault['message'])}"


def _undone(report: dict[str, Any]) -> Iterator[str]:
    for one in report["violations"]:
        yield f"  {one['rule']}: the duty since event {one['opened']} was {one['what']} at event {one['at']}"
    for one in report["duties"]:
        until = f" {one['deadline']}" if one["deadline"] else ""
        yield f"  {one['rule']}: '{plain(one['do'])}' is still owed since event {one['opened']}{until}"


def _explained(report: dict[str, Any]) -> Iterator[str]:
    yield from _faults(report)
    for verdict in report["verdicts"]:
        if verdict["verdict"] == "allow":
            continue
        yield f"event {verdict['seq']}: {plain(verdict['tool'])} of process {verdict['pid']} is denied"
        for denial in verdict["denials"]:
            yield f"  {denial['rule']} (line {denial['line']}): {plain(denial['reason'])}"
            if denial["core"]:
                yield f"    because of events {', '.join(map(str, denial['core']))}"
            for missing in denial["missing"]:
                yield f"    missing: {plain(missing)}"
        if verdict["plan"]:
            yield f"  first: {plain(written({'plan': verdict['plan']})[8:-1])}"
    yield from _undone(report)
    if report["summary"]["denied"] == 0:
        yield "nothing is denied"
