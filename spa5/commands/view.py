"""`scrapy view` without a database."""

from scrapy.commands import view

from spa5.commands import OnlyLooks


class Command(OnlyLooks, view.Command):
    pass
