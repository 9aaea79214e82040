"""``python -m rsd_local`` is ``rsd``, for a Python whose scripts are not on the path."""

from rsd_local.cli import main

if __name__ == "__main__":
    main()
