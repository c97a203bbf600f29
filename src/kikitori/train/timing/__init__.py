"""Where the time of a training goes: a stopwatch for the log, and torch's profiler for a few steps."""
