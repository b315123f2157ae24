"""What people read of a loop: which sentence a report begins with."""
