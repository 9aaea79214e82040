"""The parts of ``scripts/bench_speed.py``."""
