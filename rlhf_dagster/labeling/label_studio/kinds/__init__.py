"""The labelling page of each kind of comparison: its controls, and what their values say.

A page turns *values* (by control: the aliases chosen, the texts written, the stars given, the ranker's object) into
our forms of a result and back. ``decode`` raises :class:`~rlhf_dagster.labeling.forms.UnreadableError`; ``encode``
takes results that could be read.
"""
