"""Programs that check a step: rewards that cost no model. One file for each; the choice is here."""

from rsd_local.rewards.verifier.base import Check, Verifier

__all__ = ["Check", "Verifier"]
