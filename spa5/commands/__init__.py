"""The project's Scrapy commands, one a module."""
