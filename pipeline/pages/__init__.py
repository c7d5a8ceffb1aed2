"""Self-contained HTML pages: no network access, pictures embedded; no script unless a page brings its own."""
