"""What is at hand on this machine: models, packages, programs, speed."""
