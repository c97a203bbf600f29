"""Published model layouts and how they become model folders."""
