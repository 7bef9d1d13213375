"""What a lecturer gets beside the book: graded tasks, exams, keys and handouts, their numbers drawn from a seed."""
