"""Tokenizers: what may be read of their files (`files`), and those that need nothing but `tokenizer.json` (`fast`)."""
