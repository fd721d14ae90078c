"""`pot run`: an unmodified script recorded from outside."""
