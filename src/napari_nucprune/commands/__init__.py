"""What each command of ``nucprune`` does; heavy rooms are imported when needed."""
