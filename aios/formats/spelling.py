"""How families of models spell a tool call: one table of formats, and which one a model was trained on.

All of them write JSON and differ in what stands around it. Owns the fixed texts; does not read or write calls.
Sources: Hermes function calling (Nous Research), which Qwen 2.5 and 3 follow; Llama 3.1 and 3.2 prompt formats (Meta),
JSON form; Gemma 3 function calling guide (Google), JSON form; Mistral's tokenizers v3, v3 with tekken, and v13.
"""

from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class CallFormat:
    """The fixed texts of one family, in the order in which they stand: open, head, NAME, between, ARGUMENTS, tail.

    Further calls follow behind `separator` each; head and tail may be empty.
    """

    name: str
    open: str
    """Where it ends, a call has begun; until then all may still be plain text."""
    head: str
    between: str
    tail: str
    separator: str
    """Between two calls."""
    item_head: str = ""
    """Where all calls stand in one list, which `open` begins: what stands before the name of a further one."""
    close: str = ""
    """Behind the last call; the end of such a list."""
    starts_output: bool = False
    """Whether calls stand at the beginning of an output alone; what looks like one in the middle of a text is text."""
    wrappings: tuple[tuple[str, str], ...] = ()
    """Texts that a model may put before the first call and behind the last; read and left out, never written."""
    openers: dict[bytes, bytes] = field(init=False, hash=False, compare=False, repr=False)
    """What opens the first call → what then closes the last one (may be empty)."""

    def __post_init__(self) -> None:
        wrappings = (("", ""), *self.wrappings)
        openers = {(before + self.open).encode(): (self.close + after).encode() for before, after in wrappings}
        object.__setattr__(self, "openers", openers)

    @property
    def again(self) -> str:
        """What opens a further call."""
        return self.separator if self.item_head else self.separator + self.open

    @property
    def again_head(self) -> str:
        """What stands between that and the name."""
        return self.item_head or self.head


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

MISTRAL = CallFormat(name="mistral", open="[TOOL_CALLS]", head="", between="[ARGS]", tail="", separator="")
"""Two tokens of their own stand before name and arguments."""

MISTRAL_V3 = CallFormat(
    name="mistral_v3",
    open="[TOOL_CALLS]",
    head=' [{"name": "',
    between='", "arguments": ',
    tail="}",
    separator=", ",
    item_head='{"name": "',
    close="]",
)
"""Ids, which the template gives to calls in a history, are not written by the model."""

MISTRAL_TEKKEN = replace(MISTRAL_V3, name="mistral_tekken", head='[{"name": "')

FORMATS = {one.name: one for one in (HERMES, LLAMA3, GEMMA, MISTRAL, MISTRAL_V3, MISTRAL_TEKKEN)}

TOKENS = frozenset({"<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]"})
"""Spellings of calls that are single tokens in vocabularies; some files call them control tokens, which nobody sees."""


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
    if "[TOOL_CALLS]" in template:
        return _mistral(template)
    if "<|python_tag|>" in template or "<|start_header_id|>" in template:
        return LLAMA3
    return GEMMA if "<start_of_turn>" in template else HERMES


def _mistral(template: str) -> CallFormat:
    if "[ARGS]" in template:
        return MISTRAL
    return MISTRAL_TEKKEN if "[TOOL_CALLS][" in template else MISTRAL_V3
