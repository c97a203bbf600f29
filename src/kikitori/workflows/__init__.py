"""What the commands do: one file a command, from manifests and model folders to reports."""
