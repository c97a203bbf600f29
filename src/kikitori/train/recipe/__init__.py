"""What a training run is: one class of strictly typed recipes for each task (`recipe`), made of sections."""
