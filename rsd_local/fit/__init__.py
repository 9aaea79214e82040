"""Whether a trio fits this machine: memory by role, layers by device, and what speed that gives."""

from rsd_local.fit.plan import Plan, RolePlan, make_plan

__all__ = ["Plan", "RolePlan", "make_plan"]
