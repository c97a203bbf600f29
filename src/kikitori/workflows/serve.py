"""A server from its settings: models are loaded and tried, then it listens until it is told to end."""

import logging
from collections.abc import Sequence

from kikitori.engine.local import LocalEngine
from kikitori.engine.models import by_name, served
from kikitori.recognizer import Recognizer
from kikitori.server.app import create_app
from kikitori.server.settings import Settings

GRACE_S = 30  # for requests in flight when the server is told to end
MOST_MESSAGE_BYTES = 1024**2  # of a WebSocket


def serve(
    recognizers: Sequence[Recognizer],
    settings: Settings,
    *,
    searches: Sequence[str] | None = None,
    batch_size: int = 8,
    queue_seconds: float = 3600.0,
) -> None:
    """Serves recognisers until the process is told to end.

    Args:
        recognizers: The default one first.
        settings: How to behave.
        searches: Those to offer beside each model's own; None offers all that work.
        batch_size: Most utterances decoded together.
        queue_seconds: Audio that may wait.

    Raises:
        KikitoriError: A search does not work with a model, or two models have the same name.
    """
    import uvicorn

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    models = by_name([served(recognizer, searches) for recognizer in recognizers])
    engine = LocalEngine(models, batch_size=batch_size, max_seconds=queue_seconds)
    config = uvicorn.Config(
        create_app(engine, settings),
        host=settings.host,
        port=settings.port,
        access_log=False,
        server_header=False,
        log_level="warning",
        timeout_graceful_shutdown=GRACE_S,
        ws_max_size=MOST_MESSAGE_BYTES,
    )
    logging.getLogger(__name__).info("http://%s:%d serves %s", settings.host, settings.port, ", ".join(models))
    uvicorn.Server(config).run()
