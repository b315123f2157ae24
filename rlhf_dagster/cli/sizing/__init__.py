"""Commands on what models need."""
