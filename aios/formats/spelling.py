"""How families of models spell a tool call: one table of formats, and which one a model was trained on.

All of them write JSON and differ in what stands around it. Owns the fixed texts; does not read or write calls.
Sources: Hermes function calling (Nous Research), which Qwen 2.5 and 3 follow; Llama 3.1 and 3.2 prompt formats (Meta),
JSON form; Gemma 3 function calling guide (Google), JSON form.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class CallFormat:
    """The fixed texts of one family, in the order in which they stand: open, head, NAME, between, ARGUMENTS, tail."""

    name: str
    open: str
    """Where it ends, a call has begun; until then all may still be plain text."""
    head: str
    between: str
    tail: str
    separator: str
    """Between two calls."""
    starts_output: bool = False
    """Whether calls stand at the beginning of an output alone; what looks like one in the middle of a text is text."""
    wrappings: tuple[tuple[str, str], ...] = ()
    """Texts that a model may put before the first call and behind the last; read and left out, never written."""
    openers: dict[bytes, bytes] = field(init=False, hash=False, compare=False, repr=False)
    """What opens the first call → what then closes the last one (may be empty)."""

    def __post_init__(self) -> None:
        openers = {(before + self.open).encode(): after.encode() for before, after in (("", ""), *self.wrappings)}
        object.__setattr__(self, "openers", openers)


HERMES = CallFormat(
    name="hermes",
    open="<tool_call>",
    head='\n{"name": "',
    between='", "arguments": ',
    tail="}\n</tool_call>",
    separator="\n",
)
"""Also for models that know no format: two tags that no other text spells."""

LLAMA3 = CallFormat(
    name="llama3",
    open='{"name":',
    head=' "',
    between='", "parameters": ',
    tail="}",
    separator="; ",
    starts_output=True,
    wrappings=(("<|python_tag|>", ""),),
)

GEMMA = CallFormat(
    name="gemma",
    open='{"name":',
    head=' "',
    between='", "parameters": ',
    tail="}",
    separator="\n",
    starts_output=True,
    wrappings=(("```json\n", "\n```"), ("```tool_code\n", "\n```")),
)

FORMATS = {one.name: one for one in (HERMES, LLAMA3, GEMMA)}


def format_of(template: str, choice: str = "auto") -> CallFormat:
    """Return the format named `choice`, or for `auto` that of the family whose chat template this is.

    Raises ValueError for an unknown name.
    """
    if choice != "auto":
        if choice not in FORMATS:
            raise ValueError(f"call format {choice!r} is unknown; one of auto, {', '.join(FORMATS)}")
        return FORMATS[choice]
    if "<tool_call>" in template:
        return HERMES
    if "<|python_tag|>" in template or "<|start_header_id|>" in template:
        return LLAMA3
    return GEMMA if "<start_of_turn>" in template else HERMES
