"""Data sets as others lay them out: a module for each layout, all of them `Layout`s; `choose` picks one."""
