"""The tables of a ledger, the same in SQLite and Postgres."""

import sqlalchemy as sa

METADATA = sa.MetaData()
"""Where a table has a digest, it is the last column, and is made of all others: one more needs another format."""
_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
"""64 bits in both: SQLite counts by itself only in a column called INTEGER."""


def _text(name: str, *more: sa.schema.SchemaItem, default: str | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.Text, *more, nullable=False, server_default=default)


def _number(name: str, default: int | None = None) -> sa.Column[int]:
    return sa.Column(name, _NUMBER, nullable=False, server_default=None if default is None else sa.text(str(default)))


def _key(name: str) -> sa.Column[int]:
    return sa.Column(name, _NUMBER, primary_key=True, autoincrement=False)


LAYOUTS = sa.Table("layouts", METADATA, _text("layout"))
"""Layouts of these tables that the ledger has gone through, by their hashes."""
LEDGER_TABLE = sa.Table(
    "ledger",
    METADATA,
    _key("id"),
    _text("identity"),
    _number("format"),
    _text("loop", default=""),
    _text("copy_of", default=""),
    _number("position", 0),
    _number("task", 0),
    _number("annotations", 0),
    _number("checksum", 0),
    _number("digest", 0),
)
"""One row: who the ledger is, the last position and task id given out, and the sum of the projects' digests.

``copy_of`` is the identity of the ledger that is being copied into this one, until all of it is there. Every writer
locks this row first.
"""
PROJECTS_TABLE = sa.Table(
    "projects",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    _text("round"),
    _text("purpose"),
    _number("comparisons", 0),
    _number("comparison_sum", 0),
    _number("annotations", 0),
    _number("annotation_sum", 0),
    _number("position", 0),
    _number("digest", 0),
    sa.UniqueConstraint("round", "purpose"),
)
"""A round's comparisons for one purpose: how many there are, the sum of their digests, and the same of annotations."""
COMPARISONS_TABLE = sa.Table(
    "comparisons",
    METADATA,
    sa.Column("task_id", _NUMBER, primary_key=True, autoincrement=False),
    _text("comparison_id"),
    _text("project", sa.ForeignKey("projects.project")),
    _text("content"),
    _number("digest", 0),
    sa.UniqueConstraint("comparison_id"),
    sa.Index("comparisons_by_project", "project"),
)
ANNOTATIONS_TABLE = sa.Table(
    "annotations",
    METADATA,
    sa.Column("position", _NUMBER, primary_key=True, autoincrement=False),
    _text("annotation_id"),
    _number("version"),
    _text("comparison_id", sa.ForeignKey("comparisons.comparison_id")),
    _text("annotator"),
    _text("status"),
    _text("result"),
    sa.Column("seconds", sa.Double),
    _text("created_at"),
    _text("updated_at"),
    _text("project", default=""),
    _number("digest", 0),
    sa.UniqueConstraint("annotation_id", "version"),
    sa.Index("annotations_by_comparison", "comparison_id"),
    sa.Index("annotations_by_project", "project", "position"),
)
TALLIES = sa.Table(
    "tallies",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    _text("of"),
    _text("counts"),
    sa.Column("positions", sa.LargeBinary, nullable=False),
    sa.Column("times", sa.LargeBinary, nullable=False),
    sa.Column("held", sa.LargeBinary),
    _number("digest"),
)
"""The last counts of each project; ``positions`` and ``times`` are those of the labels that count, as 64-bit integers.

``held`` is how many annotation versions each comparison has. ``of`` names what was counted beside annotations, and
``counts`` says up to which of these. All can be made again from the rest at any time.
"""
LS_STORE = sa.Table("ls_store", METADATA, _text("id"))
LS_PROJECTS = sa.Table(
    "ls_projects",
    METADATA,
    _text("server"),
    _number("project"),
    _text("round"),
    _text("purpose"),
    _text("kind"),
    _text("config"),
    _text("settings"),
    _number("labels_wanted"),
    _number("unsure"),
    _number("listed", 0),
    sa.Column("newest", sa.Text),
    sa.Column("newest_seen", sa.Double, nullable=False, server_default=sa.text("0")),
    sa.Column("last_read", sa.Double, nullable=False, server_default=sa.text("0")),
    _text("created_at", default=""),
    _number("gone", 0),
    _text("page", default=""),
    _number("other_page", 0),
    sa.PrimaryKeyConstraint("server", "project"),
)
LS_TASKS = sa.Table(
    "ls_tasks",
    METADATA,
    _text("server"),
    _number("task"),
    _number("project"),
    _text("comparison_id"),
    _number("overlap"),
    _text("updated_at", default=""),
    _number("gone", 0),
    _text("data_digest", default=""),
    sa.PrimaryKeyConstraint("server", "task"),
    sa.Index("ls_tasks_by_project", "server", "project"),
)
LS_PEOPLE = sa.Table(
    "ls_people",
    METADATA,
    _text("server"),
    _number("user"),
    _text("name"),
    sa.PrimaryKeyConstraint("server", "user"),
)
LS_ANNOTATIONS = sa.Table(
    "ls_annotations",
    METADATA,
    _text("server"),
    _number("annotation"),
    _number("task"),
    _text("annotation_id"),
    _text("comparison_id"),
    _number("gone", 0),
    _text("created_at", default=""),
    _text("updated_at", default=""),
    sa.PrimaryKeyConstraint("server", "annotation"),
    sa.UniqueConstraint("server", "annotation_id"),
    sa.Index("ls_annotations_by_task", "server", "task"),
    sa.Index("ls_annotations_by_comparison", "server", "comparison_id"),
)
LS_SERVERS = sa.Table(
    "ls_servers",
    METADATA,
    sa.Column("key", sa.Text, primary_key=True),
    _text("address"),
    _text("database"),
    _text("left", default=""),
)
"""Servers by the key that other tables call ``server``: where each was last seen, and what tells its database."""
LS_ASIDE = sa.Table(
    "ls_aside",
    METADATA,
    _text("server"),
    _number("project"),
    _number("task"),
    _text("reason"),
    sa.PrimaryKeyConstraint("server", "task"),
)
"""Tasks that a server cannot show, or shows with other texts."""
LS_ANSWERS = sa.Table("ls_answers", METADATA, _text("at"), _text("by"), _text("action"), _text("said"))
"""What people have said about labels that were missing, and servers that were others."""
