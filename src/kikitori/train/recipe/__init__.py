"""What a training run is, as strictly typed sections of one YAML file."""
