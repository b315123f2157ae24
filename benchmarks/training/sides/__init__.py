"""The processes that are measured: one module for each library, started with the path of a request."""
