"""The asset graph: each asset reads its inputs, calls one plain function of `loop`, and reports metadata."""
