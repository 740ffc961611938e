"""What one would write instead of the project: `python -m tests.bench.script --site URL …`.

All index pages at once, then all details; a semaphore bounds the requests in flight, and each
book is upserted when it comes.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import aiohttp
from motor.motor_asyncio import AsyncIOMotorClient


async def crawl(options: argparse.Namespace) -> None:
    semaphore = asyncio.Semaphore(options.in_flight)
    size = options.page_size
    books: Any = AsyncIOMotorClient(options.mongo)[options.database]["books"]
    if options.index:
        await books.create_index("id", unique=True)

    async with aiohttp.ClientSession() as session:

        async def get(path: str) -> Any:
            async with semaphore, session.get(f"{options.site}/api/book/{path}") as response:
                response.raise_for_status()
                return await response.json()

        async def index(offset: int) -> Any:
            return await get(f"?limit={size}&offset={offset}")

        async def save(book_id: str) -> None:
            book = await get(f"{book_id}/")
            await books.update_one({"id": book["id"]}, {"$set": book}, upsert=True)

        first = await index(0)
        rest = await asyncio.gather(*map(index, range(size, first["count"], size)))
        ids = [book["id"] for page in [first, *rest] for book in page["results"]]
        await asyncio.gather(*map(save, ids))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.script")
    parser.add_argument("--site", required=True)
    parser.add_argument("--mongo", required=True, help="URI")
    parser.add_argument("--database", required=True)
    parser.add_argument("--in-flight", type=int, default=5, help="requests at the same time")
    parser.add_argument("--page-size", type=int, default=18)
    parser.add_argument("--index", action="store_true", help="make the unique index on id first")
    asyncio.run(crawl(parser.parse_args()))


if __name__ == "__main__":
    main()
