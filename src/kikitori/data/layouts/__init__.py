"""Data sets as others lay them out: a module for each layout (of known corpora in `corpora`), all of them `Layout`s; `choose` picks one."""
