"""Rules written in Python: the same language as in files, with Python's own names, functions and modules.

    from aios import rules as r

    o = r.name("o")
    get_order, refund = r.tools("get_order refund")
    look_first = r.rule("look_first", r.require(r.once(r.ok(get_order(order_id=o))), before=refund(order_id=o)))
    print(r.Rules(look_first))

Comparisons and operators of a `Term` build formulas, `&`, `|`, `~` join them. Meaning of each construct: docs/rules.md.
Knows no kernel: `Rules` is given to agents as text is.
"""

from aios.rules import agentc
from aios.rules.book import Rules
from aios.rules.declarations import (
    Body,
    Clause,
    Declared,
    Optional,
    after,
    const,
    declare,
    finish_requires,
    forbid,
    group,
    limit,
    on,
    register,
    relation,
    require,
    rule,
    text,
    user_facts,
    viability,
)
from aios.rules.events import (
    Aggregate,
    Call,
    Tool,
    always,
    any_tool,
    confirm,
    confirmed,
    count,
    distinct,
    err,
    greatest,
    least,
    lost,
    ok,
    once,
    previously,
    said,
    say,
    start,
    tool,
    tools,
    total,
    user,
)
from aios.rules.sorts import Bool, Decimal, Enum, Id, Int, Json, List, Map, Record, Str, Time
from aios.rules.terms import (
    Formula,
    Term,
    contains,
    ends,
    event_labels,
    exists,
    forall,
    known,
    labels,
    length,
    name,
    names,
    result,
    seen,
    starts,
    subbag,
    subset,
    time,
    unknown,
    value,
    zipped,
)

__all__ = [
    "Aggregate", "Body", "Bool", "Call", "Clause", "Decimal", "Declared", "Enum", "Formula", "Id", "Int", "Json",
    "List", "Map", "Optional", "Record", "Rules", "Str", "Term", "Time", "Tool", "after", "agentc", "always",
    "any_tool", "confirm", "confirmed", "const", "contains", "count", "declare", "distinct", "ends", "err",
    "event_labels", "exists", "finish_requires", "forall", "forbid", "greatest", "group", "known", "labels", "least",
    "length", "limit", "lost", "name", "names", "ok", "on", "once", "previously", "register", "relation", "require",
    "result", "rule", "said", "say", "seen", "start", "starts", "subbag", "subset", "text", "time", "tool", "tools",
    "total", "unknown", "user", "user_facts", "value", "viability", "zipped",
]  # fmt: skip
