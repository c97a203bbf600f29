"""`python -m kikitori`, which is how torchrun starts a training."""

from kikitori.cli import main

main()
