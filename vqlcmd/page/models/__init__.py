"""What is done with models, in a process of its own: functions of values, which know of no browser."""
