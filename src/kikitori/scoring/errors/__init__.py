"""Where errors come from: by speaker and length (`breakdown`), by `words`, by `search`, by `confidence`."""
