"""Texts that models and people exchange: tool-call formats, the incremental call parser, canonical JSON."""
