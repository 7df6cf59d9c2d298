"""``python -m borgcube`` is the command ``borgcube``."""

from borgcube.cli.main import main

main()
