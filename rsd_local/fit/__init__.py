"""Whether a trio fits this machine: memory by role, layers by device, and what speed that gives."""

from rsd_local.fit.memory import RoleCapacity
from rsd_local.fit.plan import MemoryPlan, RolePlan, make_plan

__all__ = ["MemoryPlan", "RoleCapacity", "RolePlan", "make_plan"]
