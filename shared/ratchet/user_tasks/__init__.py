"""Tasks: the data sets of users. Which metric judges them, which rows are held out, and how rows are added."""
