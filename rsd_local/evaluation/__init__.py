"""What the bench and the calibration share: questions, their grading, the statistics, and folders that long runs fill."""
