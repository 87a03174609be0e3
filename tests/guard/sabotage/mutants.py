"""All seeded bugs, in a fixed order."""

from tests.guard.sabotage.of_judging import JUDGING
from tests.guard.sabotage.of_kernel import KERNEL
from tests.guard.sabotage.of_masking import MASK, RESIDUAL, SETS
from tests.guard.sabotage.of_monitor import MONITOR
from tests.guard.sabotage.of_solving import SOLVING
from tests.guard.sabotage.of_viability import VIABILITY

MUTANTS = (*MONITOR, *RESIDUAL, *MASK, *SETS, *JUDGING, *SOLVING, *KERNEL, *VIABILITY)
