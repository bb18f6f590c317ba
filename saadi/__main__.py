"""`python -m saadi`: the same work as on the page, without a browser."""

from __future__ import annotations

from saadi.cli import main

if __name__ == "__main__":
    main()
