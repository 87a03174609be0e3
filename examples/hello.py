"""The smallest agent: one tool, one question, printed as it happens.

python examples/hello.py "How many letters does 'operating' have?"
"""

import sys

from aios import Agent, TextDelta, ToolFinished, tool


@tool(effect="read")
def count_letters(word: str) -> int:
    """Count the letters of a word."""
    return len(word)


agent = Agent("hello", "You answer in one short sentence.", tools=[count_letters], tool_choice="count_letters")

for step in agent.stream_sync(" ".join(sys.argv[1:]) or "How many letters does the word 'operating' have?"):
    if isinstance(step, TextDelta):
        print(step.text, end="", flush=True)
    elif isinstance(step, ToolFinished):
        print(f"[{step.report.name} → {step.report.result}]")
print()
