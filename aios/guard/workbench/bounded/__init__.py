"""Bounded model checking of rule files: all runs of a few symbolic events at once, as questions for a solver."""
