"""`scrapy bench` without a database: it measures Scrapy, and asks a server of its own."""

from scrapy.commands import bench

from spa5.commands import OnlyLooks


class Command(OnlyLooks, bench.Command):
    pass
