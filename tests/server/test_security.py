"""Who may ask and how much, from raw HTTP: keys, sites, sizes, slow bodies; and what every answer says."""

import http.client
import json
import logging
import socket
from urllib.parse import urlsplit

import httpx2
import pytest

from kikitori.engine.base import ModelCard, SearchCard
from kikitori.errors import ConfigError
from kikitori.server.app import create_app
from kikitori.server.settings import Keys, Settings, read_keys
from tests.server.conftest import SHORT, wav

CARD = ModelCard("tiny", "en", True, True, 1.8, (SearchCard("greedy", True, "integration"),))


class NoEngine:
    """Has a model and never does anything."""

    models = (CARD,)

    def check_room(self, seconds):
        pass


async def ask(settings, path, *, host="127.0.0.1:8000", **headers):
    transport = httpx2.ASGITransport(create_app(NoEngine(), settings))
    async with httpx2.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
        return await client.get(path, headers=headers)


def status(settings, path="/v1/models", **options):
    import asyncio

    return asyncio.run(ask(settings, path, **options)).status_code
