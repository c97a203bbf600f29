"""n-grams: estimated (`kneser_ney`), read and written (`arpa`, `packed`), and walked by compiled code (`model`)."""
