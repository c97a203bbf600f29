"""Work that several processes share, and that goes on when one of them was killed."""
