"""What `scrapy doctor` finds: `machine` looks at this one, `reach` at what a crawl must reach."""
