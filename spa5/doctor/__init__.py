"""What `scrapy doctor` finds.

examine: all checks, in the order in which people read their lines.
machine: this machine: Python, packages, modules, settings.
site: the site, asked as a crawl asks it.
store: MongoDB and Redis.
checks: how checks run, and what they say.
"""
