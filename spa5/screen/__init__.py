"""What people see of a crawl.

progress: a bar while it runs, and a summary at its end.
summary: what the stats say of it, in the log's lines or in a table.
outfile: a file that is there when it is whole, or stdout.
bar: the line at the bottom of a terminal.
diff: how items differ from what is stored.
"""
