"""What people see of a crawl, and of what is stored.

progress: a bar while it runs, and a summary at its end.
summary: what the stats say of it, in the log's lines or in a table.
outfile: a file that is there when it is whole, or stdout.
bar: the line at the bottom of a terminal.
diff: how items differ from what is stored.
changes: what a crawl changed.
show: what is stored of an item.
values: stored values as people read them.
output: a table for people, and JSON for programs.
crawls: the crawls in the ledger, and which of them were complete.
notify: tells people by a message (NOTIFY_URLS) that a crawl was not.
message: what that says.
send: the process that hands it to Apprise.
"""
