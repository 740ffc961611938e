"""What people see of a crawl.

progress: a bar while it runs, and a summary at its end.
summary: what the stats say of it, in the log's lines or in a table.
bar: the line at the bottom of a terminal.
diff: how items differ from what is stored.
changes: what a crawl changed.
restore: what a restore puts back.
show: what is stored of an item.
output, values: tables and JSON, and the values in them.
"""
