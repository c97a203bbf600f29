"""Text and its units: normalizers, label units and prompts."""
