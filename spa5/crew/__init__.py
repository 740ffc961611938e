"""Workers that share one crawl through Redis.

scheduler: makes a process one worker of a shared crawl.
crew: the workers, as one of them knows the others.
beats: when it asks Redis about them.
link: what it asks.
mail: what a worker sends to the others, and what it gets from them.
wire: how that is written, and what is believed of what is read.
scripts: the part that runs inside Redis.
outage: how long Redis has been away.
server: how it is reached.
"""
