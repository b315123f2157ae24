"""Tables of imported records that grow: each is kept in parts, so that adding to it costs what is added."""
