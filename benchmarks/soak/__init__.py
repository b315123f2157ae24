"""Loops that live for hours with real daemons and Label Studios, and a fault every minute."""
