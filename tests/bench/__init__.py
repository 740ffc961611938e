"""Benchmarks: `python -m tests.bench [ROW ...]` prints a table; pytest does not collect them.

script: the plain asyncio script that the project is measured against.
engine: Scrapy's engine with nothing around it.
load: how many requests a second the stand-in of the site can answer.
child: runs one command and says what it took.
runs: crawls and scripts, each into a fresh database of one mongod.
pipeline: the pipeline alone, and what MongoDB's driver does without it.
shared: what a shared crawl's Redis holds and costs.
rows: what is measured.
table: the measurements as Markdown.
"""
