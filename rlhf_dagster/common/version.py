"""The package's version. It stands down here so that every floor can read it; pyproject.toml takes it from here."""

__version__ = "0.1.0"
