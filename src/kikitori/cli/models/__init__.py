"""Commands about model folders: `kikitori list`, `kikitori merge`, `kikitori convert`."""
