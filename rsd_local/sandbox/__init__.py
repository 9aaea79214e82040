"""Running a program that nobody trusts, in limits: checks of code that a model wrote, and grading.

It imports on every platform; what holds on this one, ``Sandbox.find().protections`` says.
"""

from rsd_local.sandbox.bounds import Bounds, Outcome, Protection
from rsd_local.sandbox.sandbox import Level, Sandbox, python

__all__ = ["Bounds", "Level", "Outcome", "Protection", "Sandbox", "python"]
