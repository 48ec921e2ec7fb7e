"""The instruction-set simulator: programs on a memory image, in program order, without timing."""

from phonolith.sim.iss.machine import Machine, run

__all__ = ["Machine", "run"]
