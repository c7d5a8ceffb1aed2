"""Self-contained HTML pages: no script, no network access, pictures embedded."""
