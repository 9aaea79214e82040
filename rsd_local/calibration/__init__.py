"""Rewards fitted to the user's own models: a read-out trained on rollouts, and a threshold chosen by a stated wish."""
