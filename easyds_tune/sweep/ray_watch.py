"""Watch the processes of a local Ray from a thread, for when the main thread is blocked in Ray.

Once the GCS is gone, a call into Ray's C++ blocks for 60 s and then exits the process (ray 2.60).
The main thread has some seconds to notice and to end the sweep in order.
"""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ESSENTIAL = ("raylet", "gcs_server")
"""The processes without which Ray runs nothing; a raylet's death ends its workers, in time."""
SECONDS_BETWEEN_LOOKS = 0.25
PATIENCE_SECONDS = 10.0
"""How long the main thread has to end the sweep in order once Ray has died."""
AGENT = re.compile(r"agent_name = (\w+)")
"""How the raylet's log names the agent whose death ended the raylet."""


class RayWatch:
    """Records the processes that Ray starts; calls `give_up` if Ray dies and nothing stops it.

    session: the folder of Ray's session, for its logs. give_up: called in another thread with what
    happened; must end this process.
    """

    def __init__(
        self,
        session: Path,
        give_up: Callable[[str], object],
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._session = session
        self._give_up = give_up
        self._patience_seconds = patience_seconds
        self._processes: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    @property
    def logs(self) -> Path:
        """Folder of the logs of Ray's processes."""
        return self._session / "logs"

    @contextmanager
    def recording_processes(self) -> Iterator[None]:
        """Record each process that Ray starts within the block."""
        from ray._private import services

        start = services.start_ray_process

        def recorded(command: list[str], process_type: str, *args: Any, **kwargs: Any) -> Any:
            info = start(command, process_type, *args, **kwargs)
            self._processes.append((process_type, info.process))
            return info

        services.start_ray_process = recorded
        try:
            yield
        finally:
            services.start_ray_process = start

    def death(self) -> str | None:
        """Which essential processes have died, and why; None while all of them run."""
        dead = [
            name
            for name, process in list(self._processes)
            if name in ESSENTIAL and process.poll() is not None
        ]
        if not dead:
            return None
        agent = self._dead_agent() if "raylet" in dead else None
        because = f" because its {agent} died" if agent else ""
        return f"Ray's {' and '.join(dead)} died{because}"

    def _dead_agent(self) -> str | None:
        """The agent whose death ended the raylet, from the raylet's logs."""
        for log in self._session.glob("logs/raylet.*"):
            with suppress(OSError):
                if found := AGENT.search(log.read_text(encoding="utf-8", errors="replace")):
                    return found[1]
        return None

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching, before Ray's processes are ended on purpose."""
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._is_over.wait(SECONDS_BETWEEN_LOOKS):
            if what := self.death():
                if not self._is_over.wait(self._patience_seconds):
                    self._give_up(what)
                return
