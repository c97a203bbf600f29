"""Settings and fixtures shared by all tests: one thread, no network."""

import logging
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# In a fresh checkout any test may be the first that compiles something, and many compare all that a command says.
logging.getLogger("kikitori.notes").addFilter(lambda record: not record.getMessage().startswith("compiling"))
