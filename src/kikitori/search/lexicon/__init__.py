"""Search over a pronunciation lexicon and a word n-gram: `search`, with its inside `trie` and `kernel`."""
