"""Where a loop keeps what it makes: one small interface over a folder and over object stores."""
