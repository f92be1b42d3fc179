"""How the files of a data set are found and read, one format a file."""
