"""`python -m exlb_fab` is `exlb`."""

from exlb_fab.cli import main

main()
