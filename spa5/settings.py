"""What differs from Scrapy's defaults, in the order in which data meets it.

The project's own settings also read the environment variable of their name.
"""

from logging import getLevelName
from os import environ

BOT_NAME = "spa5"
SPIDER_MODULES = ["spa5.spiders"]
NEWSPIDER_MODULE = "spa5.spiders"
COMMANDS_MODULE = "spa5.commands"
TWISTED_REACTOR = "twisted.internet.asyncioreactor.AsyncioSelectorReactor"  # motor needs asyncio

# The site, and how politely it is asked.
SITE_URL = environ.get("SITE_URL")  # unset: the spider's own
# For a site with a log-in. The environment is the place for them: everybody on the machine can read
# command lines.
SITE_USER = environ.get("SITE_USER")
SITE_PASSWORD = environ.get("SITE_PASSWORD")
USER_AGENT = "spa5 (Scrapy)"
DEFAULT_REQUEST_HEADERS = {"Accept": "application/json"}
ROBOTSTXT_OBEY = True
DOWNLOAD_VERIFY_CERTIFICATES = True
# See engine.py; {} instead of this chooses Scrapy's own, on Twisted. Those for FTP and S3 would
# import it all the same.
DOWNLOAD_HANDLERS = {
    **dict.fromkeys(("http", "https"), "spa5.engine.Aiohttp"),
    **dict.fromkeys(("ftp", "s3")),
}
CONCURRENT_REQUESTS = environ.get("CONCURRENT_REQUESTS", 5)  # the semaphore: requests in flight

# Both set: this process is one worker of a shared crawl.
REDIS_URL = environ.get("REDIS_URL")
CRAWL_ID = environ.get("CRAWL_ID")

# Faults of the site and of the way to it. What is no answer of its API goes no further. Scrapy's
# that are off have nothing to do for this API, and each would cost a turn of every response.
DOWNLOADER_MIDDLEWARES = {
    "scrapy.downloadermiddlewares.offsite.OffsiteMiddleware": None,
    "spa5.downloadermiddlewares.ApiOnly": 50,
    "scrapy.downloadermiddlewares.retry.RetryMiddleware": None,
    "spa5.downloadermiddlewares.SiteGate": 550,
    "scrapy.downloadermiddlewares.httpcompression.HttpCompressionMiddleware": None,
    "spa5.downloadermiddlewares.Decompression": 590,
    "scrapy.downloadermiddlewares.redirect.RedirectMiddleware": None,
    "spa5.downloadermiddlewares.Redirect": 600,
    "spa5.downloadermiddlewares.Authorization": 950,  # behind the cache
    "scrapy.downloadermiddlewares.redirect.MetaRefreshMiddleware": None,
    "scrapy.downloadermiddlewares.httpauth.HttpAuthMiddleware": None,
    "scrapy.downloadermiddlewares.cookies.CookiesMiddleware": None,
}
DOWNLOAD_TIMEOUT = 30
SITE_RETRY_SECONDS = environ.get("SITE_RETRY_SECONDS", 300)  # while the site as a whole is away
RETRY_TIMES = 5
RETRY_HTTP_CODES = [408, 429, *range(500, 600)]
# Scrapy's, without those that import Twisted's HTTP client, of which no handler here makes use.
RETRY_EXCEPTIONS = [
    "scrapy.exceptions.CannotResolveHostError",
    "scrapy.exceptions.DownloadConnectionRefusedError",
    "scrapy.exceptions.DownloadFailedError",
    "scrapy.exceptions.DownloadTimeoutError",
    "scrapy.exceptions.ResponseDataLossError",
    OSError,
]
REDIRECT_MAX_TIMES = 3
# An item may have up to MongoDB's 16 MB, which JSON can spell at twice that length.
DOWNLOAD_MAXSIZE = 33_554_432
DOWNLOAD_WARNSIZE = 0

# What needs no fetching is dropped right behind the spider.
SPIDER_MIDDLEWARES = {
    "scrapy.spidermiddlewares.start.StartSpiderMiddleware": None,
    "scrapy.spidermiddlewares.referer.RefererMiddleware": None,
    "scrapy.spidermiddlewares.urllength.UrlLengthMiddleware": None,
    "scrapy.spidermiddlewares.depth.DepthMiddleware": None,
    "scrapy.spidermiddlewares.metacopy.MetaCopyDetectionMiddleware": None,
    "spa5.middlewares.SkipStored": 950,
    "spa5.middlewares.Sweeps": 960,
}
REFRESH_AFTER_DAYS = environ.get("REFRESH_AFTER_DAYS", 7)
MAX_SWEEPS = environ.get("MAX_SWEEPS", 3)
DRIFT_SHARE = environ.get("DRIFT_SHARE", 0.5)
# The spider's `Listing` knows what was asked for.
DUPEFILTER_CLASS = "scrapy.dupefilters.BaseDupeFilter"

# A check for authors of callbacks, which reads their source anew for every tenth response.
WARN_ON_GENERATOR_RETURN_VALUE = False

# Items: each response yields one; more workers a response only cost CPU.
CONCURRENT_ITEMS = 1
ITEM_PIPELINES = {"spa5.pipelines.MongoPipeline": 300}

# MongoDB. The environment is the place for a URI with a password: command lines can be read by
# every user of the machine.
MONGO_URI = environ.get("MONGO_URI")
MONGO_DATABASE = environ.get("MONGO_DATABASE")  # unset: the spider's name
MONGO_COLLECTION = environ.get("MONGO_COLLECTION")  # the same
MONGO_DATA_DIR = environ.get("MONGO_DATA_DIR")
MONGO_RETRY_SECONDS = environ.get("MONGO_RETRY_SECONDS", 300)
# What a change replaced goes to the collection NAME_history.
HISTORY_ENABLED = environ.get("HISTORY_ENABLED", True)
HISTORY_KEEP_DAYS = environ.get("HISTORY_KEEP_DAYS")  # unset: for ever

# Feeds (-O items.jsonl) of the items as they are stored.
FEED_EXPORT_ENCODING = "utf-8"
FEED_EXPORTERS = {"csv": "spa5.feeds.CsvExporter", "xml": "spa5.feeds.XmlExporter"}

STATS_CLASS = "spa5.engine.Stats"

# For people: on a terminal a bar, and at the end a summary in words. The stats stay in the log, for
# programs. Telnet and remote control are doors that nobody needs.
EXTENSIONS = {
    "scrapy.extensions.telnet.TelnetConsole": None,
    "scrapy.extensions.remote_control.RemoteControl": None,
    "spa5.extensions.CrawlDelay": 500,
    "spa5.screen.progress.Progress": 500,
    "spa5.screen.notify.Notify": 500,
}
PROGRESS_ENABLED = environ.get("PROGRESS_ENABLED", True)
NOTIFY_URLS = environ.get("NOTIFY_URLS")  # of Apprise; who is told when a crawl is not complete

# The log: a line for each item would cost more than storing it. The environment's LOG_LEVEL may be
# meant for other programs: one that Python does not know is ignored.
_level = environ.get("LOG_LEVEL", "").upper()
LOG_LEVEL = _level if isinstance(getLevelName(_level), int) else "INFO"
RETRY_GIVE_UP_LOG_LEVEL = "DEBUG"  # the spider says it, with the reason
