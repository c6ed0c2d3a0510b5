"""Which optimizer is better on a task: the plan of runs, the runs as processes, their statistics and the report.

Nothing is imported here: a run's own process passes by.
"""
