"""What is done with models, in a process of its own: functions of values that know nothing of a browser."""
