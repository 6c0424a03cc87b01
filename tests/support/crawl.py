"""All addresses of a page's process that its links lead to, and one of each kind."""

from __future__ import annotations

import re
from collections import deque
from html import unescape
from urllib.parse import parse_qsl, unquote, urldefrag, urlsplit

import httpx

LINK = re.compile(r"""(?:\shref|\sdata-source|\shx-get)=(?:"([^"]*)"|'([^']*)')""")
MOST_OF_A_KIND = 6


def kind_of(address: str) -> str:
    """``/checkpoints/:?sort`` of ``/checkpoints/7?sort=loss``: pages of one kind are made by one route."""
    parts = urlsplit(address)
    names = [each for each in parts.path.split("/") if each]
    shape = "/".join(":" if n == 1 or re.search(r"\d|%", each) else each for n, each in enumerate(names))
    options = ",".join(sorted({name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}))
    return f"/{shape}?{options}"


def links_of(html: str) -> list[str]:
    """Addresses on the same site that a page names, without their anchors."""
    found = [unescape(first or second) for first, second in LINK.findall(html)]
    return list(dict.fromkeys(urldefrag(each)[0] for each in found if each.startswith("/")))


def crawl(url: str, begin: list[str], most: int = 400) -> dict[str, httpx.Response]:
    """The answers by address, beginning with these; of each kind only a few addresses are followed."""
    found: dict[str, httpx.Response] = {}
    kinds: dict[str, int] = {}
    queue = deque(begin)
    with httpx.Client(base_url=url, timeout=60.0, trust_env=False, follow_redirects=True) as client:
        while queue and len(found) < most:
            address = queue.popleft()
            kind = kind_of(address)
            if address in found or kinds.get(kind, 0) >= MOST_OF_A_KIND or unquote(address).startswith("/static/"):
                continue
            kinds[kind] = kinds.get(kind, 0) + 1
            with client.stream("GET", address) as answer:
                if "text/html" in answer.headers.get("content-type", ""):
                    answer.read()
                    queue += links_of(answer.text)
            found[address] = answer
    return found


def is_page(answer: httpx.Response) -> bool:
    return answer.headers.get("content-type", "").startswith("text/html")
