"""Where examples come from: task families, a teacher's model server, scripts of your own."""
