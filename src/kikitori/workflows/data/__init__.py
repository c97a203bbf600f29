"""`kikitori data check`: `check` finds out, `tables` says it."""
