"""Language models that judge texts: asked over HTTP, within a budget, and never twice the same."""
