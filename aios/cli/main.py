"""The verbs of the command line: their names, options and exit codes. What they do stands in the modules beside.

Exit codes come from `AiosError.exit_code`: 0 ok, 1 the agent failed, 2 usage, 75 retry later, 77 denied,
78 bad config, 125 kernel unreachable, 128 + n signal.
"""

# ruff: noqa: PLC0415  # start-up time: a verb loads what it needs and nothing that another verb needs

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from aios import env
from aios.errors import AiosError

_INTERRUPTED = 130
_TRACEBACK_FROM = "2"

app = typer.Typer(
    name="aios",
    help="An operating system layer for AI agents.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
models = typer.Typer(help="Models on this machine.", no_args_is_help=True, rich_markup_mode=None)
tools = typer.Typer(help="Tools that a kernel knows.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(models, name="models")
app.add_typer(tools, name="tools")
rules = typer.Typer(help="Rule files and traces.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(rules, name="rules")

Kernel = Annotated[
    str | None, typer.Option("--kernel", metavar="NAME", help="Which kernel; needed only when several live.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Pid = Annotated[int, typer.Argument(min=1, metavar="PID")]
Pids = Annotated[list[int], typer.Argument(min=1, metavar="PID…")]
RuleFile = Annotated[Path, typer.Argument(metavar="FILE")]
ApprovalId = Annotated[int | None, typer.Argument(min=1, metavar="[ID]", help="Without it: list what waits.")]
Digest = Annotated[str | None, typer.Option(help="Decide only if the call still has this digest.")]
Answer = Annotated[str, typer.Option(help="Text for the agent: the answer to its question, or why.")]


@app.command()
def run(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    args: Annotated[list[str] | None, typer.Argument(metavar="ARGS", help="The program's own; after -- .")] = None,
    *,
    name: Annotated[
        str | None, typer.Option(help="Name of the kernel and its store; default: the file's stem.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name in the model store, or a path.")] = None,
    rules: Annotated[list[Path] | None, typer.Option(help="Rule file; may be given several times.")] = None,
    pool_pages: Annotated[int | None, typer.Option(help="KV pages on the device; 0 = as many as fit.")] = None,
    quantum: Annotated[int | None, typer.Option(help="Decode steps before another context's turn.")] = None,
    policy: Annotated[str | None, typer.Option(help="fifo, rr or priority.")] = None,
    durability: Annotated[str | None, typer.Option(help="crash, power or none.")] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="The same tokens whatever else runs or is interrupted; slower.")
    ] = False,
    embedded: Annotated[bool, typer.Option("--embedded", help="Do not join a daemon (there is none yet).")] = True,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew, forgetting the earlier run of this name.")
    ] = False,
) -> None:
    """Run a Python program with a kernel of its own; the same name resumes where it stopped."""
    from aios.cli import run as running

    del embedded  # the only mode of this version; accepted so that scripts may say what they mean
    flags: dict[str, Any] = {
        "name": name,
        "model": model,
        "rules": tuple(rules) if rules else None,
        "pool_pages": pool_pages,
        "quantum_tokens": quantum,
        "policy": policy,
        "durability": durability,
        "deterministic": deterministic or None,
    }
    raise typer.Exit(running.run(file, args or [], fresh=fresh, flags=flags))


@app.command()
def ps(
    kernel: Kernel = None,
    all: Annotated[bool, typer.Option("--all", "-a", help="Also those that have exited.")] = False,
    json: Json = False,
) -> None:
    """List processes."""
    from aios.cli import processes

    processes.ps(kernel, all=all, json=json)


@app.command()
def top(
    kernel: Kernel = None,
    once: Annotated[bool, typer.Option("--once", help="Print one plain picture and end.")] = False,
) -> None:
    """Watch processes, pages and approvals as they change."""
    if once:
        from aios.cli import picture

        picture.once(kernel)
    else:
        from aios.tui import top as monitor

        monitor.run(kernel)


@app.command()
def logs(
    pid: Pid,
    kernel: Kernel = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as things happen.")] = False,
    json: Json = False,
) -> None:
    """Show what a process did."""
    from aios.cli import processes

    processes.logs(kernel, pid, follow=follow, json=json)


@app.command()
def kill(
    pids: Pids,
    signal: Annotated[str, typer.Option("--signal", "-s", help="term, kill, stop or cont.")] = "term",
    kernel: Kernel = None,
) -> None:
    """Send a signal; by default ask the process to end."""
    from aios.cli import processes

    processes.signal(kernel, pids, signal)


@app.command()
def stop(pids: Pids, kernel: Kernel = None) -> None:
    """Stop processes until `cont`."""
    from aios.cli import processes

    processes.signal(kernel, pids, "stop")


@app.command()
def cont(pids: Pids, kernel: Kernel = None) -> None:
    """Let stopped processes go on."""
    from aios.cli import processes

    processes.signal(kernel, pids, "cont")


@app.command()
def approve(
    approval: ApprovalId = None, digest: Digest = None, answer: Answer = "", kernel: Kernel = None, json: Json = False
) -> None:
    """Allow exactly the call that waits under ID."""
    from aios.cli import approvals

    approvals.decide(kernel, approval, allow=True, digest=digest, answer=answer, json=json)


@app.command()
def deny(
    approval: ApprovalId = None, digest: Digest = None, answer: Answer = "", kernel: Kernel = None, json: Json = False
) -> None:
    """Refuse the call that waits under ID."""
    from aios.cli import approvals

    approvals.decide(kernel, approval, allow=False, digest=digest, answer=answer, json=json)


@models.command()
def pull(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    file: Annotated[Path | None, typer.Option("--from", metavar="FILE", help="Take it from this file.")] = None,
) -> None:
    """Bring a model into the store."""
    from aios.cli import models as store

    store.pull(name, file)


@models.command("ls")
def models_ls(json: Json = False) -> None:
    """List the models in the store."""
    from aios.cli import models as store

    store.ls(json=json)


@models.command("recommend")
def models_recommend(json: Json = False) -> None:
    """List models that fit this machine, the best first, with what to type."""
    from aios.cli import models as store

    store.recommend(json=json)


@models.command("rm")
def models_rm(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Delete a model from the store."""
    from aios.cli import models as store

    store.rm(name)


@tools.command("ls")
def tools_ls(kernel: Kernel = None, json: Json = False) -> None:
    """List tools."""
    from aios.cli import tools as known

    known.ls(kernel, json=json)


@tools.command("show")
def tools_show(name: Annotated[str, typer.Argument(metavar="NAME")], kernel: Kernel = None, json: Json = False) -> None:
    """Show one tool: what it does, its effect class and its arguments."""
    from aios.cli import tools as known

    known.show(kernel, name, json=json)


@app.command()
def doctor(json: Json = False) -> None:
    """Say what this machine can do, and what would mend the rest."""
    from aios.cli import doctor as surgery

    raise typer.Exit(surgery.run(json=json))


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as version_of

    print(version_of("aios-kernel"))


@rules.command("replay")
def rules_replay(
    file: RuleFile,
    traces: Annotated[list[Path], typer.Argument(metavar="TRACE…", help="Files of JSON lines, or folders of them.")],
    json: Json = False,
    audit: Annotated[bool, typer.Option("--audit", help="Record what is denied as it happened.")] = False,
    viability: Annotated[str | None, typer.Option(help="V0, V1 or V2, instead of what the file says.")] = None,
) -> None:
    """Judge recorded traces; 0 all allowed, 77 denials or violations, 2 a bad trace, 78 a bad rule file."""
    from aios.cli import rules as verbs

    raise typer.Exit(verbs.replay(file, traces, json=json, audit=audit, viability=viability))


@rules.command("explain")
def rules_explain(file: RuleFile, trace: Annotated[Path, typer.Argument(metavar="TRACE")]) -> None:
    """Say why calls of a trace are denied, which events are to blame, and what would help."""
    from aios.cli import rules as verbs

    raise typer.Exit(verbs.explain(file, trace))


@rules.command("test")
def rules_test(file: RuleFile, json: Json = False) -> None:
    """Run the scenarios written in a rule file; 77 if one fails."""
    from aios.cli import rules as verbs

    raise typer.Exit(verbs.test(file, json=json))


@rules.command("fmt")
def rules_fmt(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…")],
    check: Annotated[bool, typer.Option("--check", help="Change nothing; 1 if a file is not laid out.")] = False,
) -> None:
    """Lay rule files out in one way; comments and line ends stay."""
    from aios.cli import rules as verbs

    raise typer.Exit(verbs.fmt(files, check=check))


@rules.command("check")
def rules_check(
    file: RuleFile,
    *,
    json: Json = False,
    viability: Annotated[str | None, typer.Option(help="V0, V1 or V2, instead of what the file says.")] = None,
    solver: Annotated[bool, typer.Option(help="Look for runs that the rules allow and forbid.")] = True,
    timeout: Annotated[float, typer.Option(help="Seconds for the solver, all in all.")] = 20.0,
    events: Annotated[int, typer.Option(help="The longest runs that are all looked at.", min=1, max=12)] = 6,
    examples: Annotated[Path | None, typer.Option(help="Write the runs found there, for 'rules replay'.")] = None,
) -> None:
    """Name all errors, what is dead, shadowed or contradictory, and examples of runs; 78 if there are errors."""
    from aios.cli import rules as verbs

    raise typer.Exit(
        verbs.check(
            file, json=json, viability=viability, is_solved=solver, timeout_s=timeout, events=events, examples=examples
        )
    )


def main(argv: list[str] | None = None) -> None:
    """Run one command and exit with its code; errors are one line on stderr (AIOS_DEBUG ≥ 2: with traceback)."""
    try:
        app(argv)
    except AiosError as error:
        if os.environ.get(env.DEBUG, "0") >= _TRACEBACK_FROM:
            raise
        print(f"aios: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
