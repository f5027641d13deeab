"""A deterministic simulation: undrift's own workers in a world where everything fails.

One seed is one run. It decides who goes on next, which calls fail, which requests land late, twice
or never, when processes die or hang, clocks jump, disks are restored and people tamper; everything
is judged against what the source held at every step. A run can be repeated from its seed alone::

    python -m undrift.testing.simulation --seed 4711 --verbose
"""

from undrift.testing.simulation.run import Run, simulate

__all__ = ["Run", "simulate"]
