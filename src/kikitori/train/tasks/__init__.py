"""What is trained: one file per task, behind the protocol of `base`."""
