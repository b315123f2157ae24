"""What acts by itself: schedules, sensors, jobs, the launcher of runs, and the Dagster instance they live in."""
