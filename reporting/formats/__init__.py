"""What a table looks like as HTML, CSV, Markdown and LaTeX."""
