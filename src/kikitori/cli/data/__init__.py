"""`kikitori data ...`: data to train on."""
