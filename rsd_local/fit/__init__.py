"""Whether a trio fits this machine: memory by role, layers by device, and what speed that gives."""

from rsd_local.fit.context import context_warning
from rsd_local.fit.memory import RoleCapacity
from rsd_local.fit.plan import MemoryPlan, RolePlan, make_plan
from rsd_local.fit.published import published_headers

__all__ = ["MemoryPlan", "RoleCapacity", "RolePlan", "context_warning", "make_plan", "published_headers"]
