"""Mutations of completed conversations: what a careless, deceived or clever agent might do instead.

An operator changes a script and does not say what is right: the checker labels every judged call of the outcome. What
an operator *aims* at (a violation, or a conversation that is still compliant) is kept for the tests' own honesty: an
operator that never hits what it aims at is broken.
"""

from tests.guard.retail.mutants import consent, goods, money, orders, people, shape
from tests.guard.retail.mutants.base import OPERATORS, Mutant, Operator, Subject

__all__ = ["OPERATORS", "Mutant", "Operator", "Subject", "consent", "goods", "money", "orders", "people", "shape"]
