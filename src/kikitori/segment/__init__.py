"""Where in a recording speech is: `energy`, by spectral variation."""
