"""What training takes of memory, and how to take less."""
