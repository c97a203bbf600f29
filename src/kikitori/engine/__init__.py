"""What recognises for many clients at once: `base` (the `Engine` protocol), `local` (in this process), `models`."""
