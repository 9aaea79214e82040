"""Evaluation: data sets, grading, the runner, and reports over what it wrote."""
