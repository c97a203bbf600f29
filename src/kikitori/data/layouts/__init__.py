"""Data sets as others lay them out: a module for each layout, known corpora in `corpora`; `choose` picks one.

All of these modules are `Layout`s.
"""
