"""The scorecard: promises about crashes and bad files, each counted. `make score` counts in full, `make test` in short.

A row is a function that tries something many times and counts how often the promise held.
"""
