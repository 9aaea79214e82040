"""What a server wrote: a folder with one JSON line an answer, and the report of it.

folder.py    the folder: its manifest, its files, reading and appending
figures.py   what its lines add up to
report.py    the same as text, as Markdown and as a page
plots.py     the plots of the page
"""
