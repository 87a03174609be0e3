"""Checked rules at work over a trace: what must be remembered, and which rules a call breaks."""
