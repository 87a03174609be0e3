"""What a model is told when nothing that it wanted to call is allowed: in words that a small one can act on."""

from collections.abc import Sequence

from aios.abi.tools import ToolReport

NO_CALL = "No call that the rules allow can be made now. Answer without calling a tool."
_MOST = 3
_MOST_CHARACTERS = 400


def without_call(refused: Sequence[ToolReport]) -> tuple[str, bool]:
    """Return what to tell after a generation that ended with `no_compliant_call`, and whether a call may help.

    A call helps where a plan is known that begins with a call; then the model is told to make it.
    """
    reasons = [one.reason[:_MOST_CHARACTERS] for one in refused if one.reason][:_MOST]
    if not reasons:
        return NO_CALL, False
    can_help = any(one.plan for one in refused)
    advice = "Do first what is said to come first." if can_help else "Answer without calling a tool."
    return f"Not possible now: {'. '.join(reasons)}. {advice}", can_help
