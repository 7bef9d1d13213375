"""One module a chapter: its graded task and its experiment, with numbers to be drawn."""
