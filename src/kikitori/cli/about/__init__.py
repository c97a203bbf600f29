"""Commands that say what is at hand: `kikitori list`, `kikitori doctor`."""
