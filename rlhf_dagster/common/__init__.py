"""Small things that every floor uses: files, intervals, progress, the stop cord."""
