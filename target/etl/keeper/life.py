"""One worker of one revision from its first start to its end: starting, well, dying and started again, idle, failed.

It decides nothing about which workers there should be.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace

from aiohttp import web

from transom.cluster.records import EtlRecord
from transom.target.etl.keeper.fill import empty, is_too_full
from transom.target.etl.keeper.health import first_well, is_well, takes_chunks
from transom.target.etl.keeper.logs import Captured, LogFile
from transom.target.etl.keeper.orders import order, post, with_free_port
from transom.target.etl.keeper.places import use_offset
from transom.target.etl.keeper.processes import tree_usage
from transom.target.etl.keeper.restarts import Restarts
from transom.target.etl.keeper.workshop import Workshop
from transom.target.etl.runtimes.base import Ended, Launcher, Running, StartError, Usage
from transom.target.etl.runtimes.workplace import limits_of
from transom.target.etl.sandbox.ending import Bound
from transom.target.etl.sandbox.program import in_words
from transom.target.etl.transports.base import Address
from transom.target.etl.transports.sockets import listen_in_netns
from transom.target.etl.workers_status import WorkerState, WorkerStatus

TICK_S = 0.05
_FIRST_LOOK_S = 2.0  # how long a worker that starts may take to answer one look at its health
_LOOK_S = 5.0
_LOOK_EVERY_S = 10.0
_MOST_MISSED = 3
_USAGE_EVERY_S = 2.0
_FAILED_REST_S = 60.0
_SAID_EVERY_S = 1.5  # that there are runs, at least
_TELL_EVERY_S = 0.5
_STARTS = {"container": "its image is being pulled, or its container made"}  # what may take long before it says a word
_GRACE_S = 3.0
_log = logging.getLogger("transom.keeper")


@dataclass(frozen=True, slots=True)
class _End:
    """Why a worker's life ended: `final` ones aren't tried again, `idle` ones are when somebody asks."""

    words: str = ""
    bound: Bound = ""
    final: bool = False
    idle: bool = False
    at_work: bool = False


class Life:
    """Keeps one worker up until `end`. `status` is what is to be said of it; `changed` is called when that changes.

    On the event loop only.
    """

    def __init__(
        self, record: EtlRecord, shop: Workshop, log: LogFile, number: int, changed: Callable[[WorkerState], None]
    ) -> None:
        self.record = record
        self.status = WorkerStatus(record.revision, "initializing", record.launch_ns, since=time.time())
        self._shop = shop
        self._log = log
        self._changed = changed
        self._place = post(record, shop.sockets / f"{record.name}.{number}")
        self._offset = use_offset(record.name, record.revision)
        self._used = float("-inf")
        self._began = self._next_usage = self._next_tell = time.monotonic()
        self._chunked = self._is_too_full = False
        self._restarts = Restarts()
        # One thread from start to stop: a process may be told to die with the thread that started it.
        self._hands = ThreadPoolExecutor(1, thread_name_prefix=f"keeper-{record.name}")
        self._asking: asyncio.Task[None] | None = None
        self._task = asyncio.get_running_loop().create_task(self._live())

    @property
    def busy(self) -> bool:
        """Whether a run holds the worker just now."""
        held = self._shop.uses.held_elsewhere(self._offset)
        if held:
            self._used = time.monotonic()
        return held

    @property
    def unused_for_s(self) -> float:
        """Seconds since a run was last seen to hold it."""
        return 0.0 if self.busy else time.monotonic() - self._used

    @property
    def patience_s(self) -> float:
        """How long a run that has begun may still need it."""
        return self.record.timeout_s or self._shop.limits.timeout_s

    async def end(self) -> None:
        """Stop the worker, whatever it is at; nothing of it runs on return."""
        for task in filter(None, (self._task, self._asking)):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await asyncio.to_thread(self._hands.shutdown)
        shutil.rmtree(self._place.folder, ignore_errors=True)

    # --- life after life ----------------------------------------------------------------------

    async def _live(self) -> None:
        while True:
            end = await self._once()
            if end.idle:
                await self._until_wanted()
                self._say("initializing")
                continue
            now = time.monotonic()
            well_for_s = now - self._began if self.status.state == "running" else 0.0
            pause_s = None if end.final else self._restarts.died(now, well_for_s, at_work=end.at_work)
            if pause_s is None:
                self._log.note(f"revision {self.record.revision} has failed: {end.words}")
                self._say("failed", end.words, end.bound)
                # as long as it runs on other targets it is wanted here too
                await asyncio.sleep(_FAILED_REST_S)
                self._restarts = Restarts(self._restarts.count)
            else:
                self._log.note(f"revision {self.record.revision} is started again: {end.words}")
                self._say("initializing", end.words, end.bound)
                await asyncio.sleep(pause_s)

    async def _once(self) -> _End:
        """Start the worker and stay with it to its end."""
        captured = Captured(self._log)
        try:
            return await self._started(captured)
        except StartError as error:
            return _End(_with(str(error), captured.last_words), final=error.final)
        except Exception as error:
            _log.exception("the worker of ETL %s could not be kept", self.record.name)
            return _End(f"its keeper failed: {type(error).__name__}: {error}")
        finally:
            captured.close()

    async def _started(self, captured: Captured) -> _End:
        async with AsyncExitStack() as stack:
            launcher = self._launcher()
            self._place = with_free_port(self._place)
            files = self._shop.places.files(self.record.name, self.record.revision)
            if self._place.spec.direct_file:
                files.mkdir(parents=True, exist_ok=True)
                files.chmod(0o711)  # whatever the umask: the worker is somebody else
            if self._is_too_full:
                await asyncio.to_thread(empty, self._place.folder)
                self._is_too_full = False
            for left in self._place.folder.glob("*.sock"):
                left.unlink()  # of the worker before: nobody can listen where a file is
            self._shop.desk.admit(self.record.name)
            await self._listen(stack, self._shop.desk.listen_at(self._place.pull_socket))
            before = self.status.message
            self._tell(_STARTS.get(self.record.runtime, ""))
            running = await self._start(launcher, captured.write_fd)
            stack.push_async_callback(self._stop, running)
            if self.status.message != before:  # that much is done
                self.status = replace(self.status, message=before)
                self._changed("initializing")
            found = await self._until_well(running, captured, stack)
            if isinstance(found, _End):
                return found
            self._began = time.monotonic()
            self._chunked = await asyncio.to_thread(takes_chunks, found, _FIRST_LOOK_S)
            captured.forget()  # how it started explains no end
            self.status = replace(self.status, message=before)
            self._say("running", address=found, running=running)
            self._log.note(f"revision {self.record.revision} runs at {found}")
            return await self._attend(running, found, captured)

    def _launcher(self) -> Launcher:
        try:
            return self._shop.launchers[self.record.runtime]
        except KeyError:
            raise StartError(f"runtime '{self.record.runtime}' can't be had here", final=True) from None

    # --- starting -----------------------------------------------------------------------------

    async def _start(self, launcher: Launcher, log_fd: int) -> Running:
        """Start it, in a thread; what comes of a start that nobody waits for any more is stopped."""
        shop = self._shop
        secret = shop.secret_of(self.record.name) if self._place.spec.redirect else ""
        asking = self._hands.submit(launcher.own_network, self._place.spec)
        target_url = self._target_url(own_network=await asyncio.wrap_future(asking))
        own_fd = os.dup(log_fd)  # a start goes on when nobody waits for it any more, and ours is closed then
        try:
            told = order(self._place, shop.places, shop.limits, target_url, own_fd, secret)
            starting = self._hands.submit(launcher.start, told)
        except BaseException:
            os.close(own_fd)
            raise
        starting.add_done_callback(lambda _: os.close(own_fd))
        try:
            return await asyncio.wrap_future(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(_stop_started)
            raise

    def _target_url(self, *, own_network: bool) -> str:
        """Where the worker is to fetch objects: what it can reach, and is sure to understand if that can be had."""
        place, desk, etl = self._place, self._shop.desk, self.record.name
        if self.record.runtime == "code" or (own_network and not self._shop.enters):
            return desk.unix_url(etl, place.pull_socket)  # which our own SDK knows how to use
        return desk.url(etl, place.pull_port if own_network else 0)

    async def _listen_inside(self, stack: AsyncExitStack, running: Running) -> bool:
        """Let a worker that has a network namespace of its own fetch objects over TCP there, once it has got it."""
        pid = next((address.netns_pid for address in running.addresses if address.netns_pid), 0)
        if not pid:
            return False
        try:
            inside = await asyncio.to_thread(listen_in_netns, pid, self._place.pull_port)
        except OSError as error:
            raise StartError(f"its network namespace can't be listened in: {error}") from error
        await self._listen(stack, self._shop.desk.listen_on(inside))
        return True

    async def _listen(self, stack: AsyncExitStack, site: Awaitable[web.BaseSite]) -> None:
        stack.push_async_callback((await site).stop)

    async def _until_well(self, running: Running, captured: Captured, stack: AsyncExitStack) -> Address | _End:
        give_up = time.monotonic() + self._place.spec.init_timeout_s
        listening = not (self._place.pulls and self._shop.enters)
        while True:
            listening = listening or await self._listen_inside(stack, running)
            how = running.ended(captured.words)
            if how is not None:
                return self._died(how, captured)
            found = await asyncio.to_thread(first_well, self._ways_in(running), _FIRST_LOOK_S)
            if found is not None:
                return found
            known = ". ".join(filter(None, (captured.last_words, running.hint)))
            if time.monotonic() > give_up:
                where = " nor ".join(map(str, self._ways_in(running)))
                waited = f"within init_timeout, {self._place.spec.init_timeout_s:g} s"
                return _End(_with(f"nobody answered GET /health at {where} {waited}", known), final=True)
            self._tell(known)
            await asyncio.sleep(TICK_S)

    def _tell(self, words: str) -> None:
        """Say what is known of a start: should it not be up in time, whoever decides that has these words for it."""
        if self.status.state != "initializing" or words in ("", self.status.message):
            return  # one that has failed and is tried again says why it failed
        if time.monotonic() >= self._next_tell:
            self._next_tell = time.monotonic() + _TELL_EVERY_S
            self.status = replace(self.status, message=words)
            self._changed("initializing")

    def _ways_in(self, running: Running) -> Sequence[Address]:
        """Where the target itself may come; at the port for clients that are sent here, only they may."""
        handed_over = bool(self._place.spec.redirect)
        return [address for address in running.addresses if address.unix or not handed_over]

    # --- attending ----------------------------------------------------------------------------

    async def _attend(self, running: Running, address: Address, captured: Captured) -> _End:
        missed = 0
        next_look = time.monotonic() + _LOOK_EVERY_S
        while True:
            await asyncio.sleep(TICK_S)
            how = running.ended(captured.words)
            if how is not None:
                return self._died(how, captured)
            if self._is_too_full:
                return self._overfilled()
            if self._may_rest() and self._rests(running, address):
                return _End(idle=True)
            now = time.monotonic()
            if now >= self._next_usage and self._asking is None:
                self._asking = asyncio.create_task(self._ask_usage(running))
            if now >= next_look and not self.busy:
                well = await asyncio.to_thread(is_well, address, _LOOK_S)
                missed = 0 if well else missed + 1
                if missed == _MOST_MISSED:
                    return _End(_with("it no longer answered GET /health", captured.last_words))
                next_look = time.monotonic() + (_LOOK_EVERY_S if well else 1.0)

    def _died(self, how: Ended, captured: Captured) -> _End:
        at_work = self.status.state == "running" and self._worked_within(1.0)
        return _End(_with(f"its worker ended with {how}", captured.last_words), how.bound, at_work=at_work)

    def _overfilled(self) -> _End:
        at_work = self._worked_within(2 * _USAGE_EVERY_S)
        most = in_words(limits_of(self._place.spec).scratch)
        return _End(
            f"its worker put more into its own folder than its scratch limit of {most}", "scratch", at_work=at_work
        )

    def _may_rest(self) -> bool:
        idle_s = self._place.spec.idle_timeout_s
        if idle_s is None or self.unused_for_s < idle_s or time.monotonic() - self._began < idle_s:
            return False
        return self._unwanted_for_s() >= idle_s

    def _unwanted_for_s(self) -> float:
        """Seconds since a run last began or ended, as far as runs say so: once a second."""
        try:
            return time.time() - self._shop.places.wanted(self.record.name, self.record.revision).stat().st_mtime
        except FileNotFoundError:
            return float("inf")

    def _worked_within(self, seconds: float) -> bool:
        """Whether it had an object in hand in the last `seconds`, or a little before."""
        return self.unused_for_s < seconds or self._unwanted_for_s() < seconds + _SAID_EVERY_S

    def _rests(self, running: Running, address: Address) -> bool:
        """Say that the worker rests, unless a run began meanwhile: one that begins from now on will read it."""
        self._say("idle")
        if self.busy:
            self._say("running", address=address, running=running)
            return False
        self._log.note(f"revision {self.record.revision} is stopped for want of work")
        return True

    async def _until_wanted(self) -> None:
        while not self.busy:  # noqa: ASYNC110 - other processes tell by a lock, and locks tell nobody
            await asyncio.sleep(TICK_S)

    async def _ask_usage(self, running: Running) -> None:
        try:
            usage = await asyncio.to_thread(_usage, running)
            most = limits_of(self._place.spec).scratch
            self._is_too_full = await asyncio.to_thread(is_too_full, self._place.folder, most)
            if usage is not None and self.status.state == "running":
                self.status = replace(self.status, cpu_s=usage.cpu_s, memory_bytes=usage.memory)
                self._changed("running")
        finally:
            self._next_usage = time.monotonic() + _USAGE_EVERY_S
            self._asking = None

    async def _stop(self, running: Running) -> None:
        """Stop it in its own thread, even if nobody waits for that any more."""
        stopping = self._hands.submit(running.stop, _GRACE_S)
        try:
            await asyncio.shield(asyncio.wrap_future(stopping))
        except StartError as error:
            _log.warning("the worker of ETL %s could not be stopped: %s", self.record.name, error)

    def _say(
        self,
        state: WorkerState,
        message: str = "",
        bound: Bound = "",
        *,
        address: Address | None = None,
        running: Running | None = None,
    ) -> None:
        """Say how it is. What a worker before it died of stays said while this one runs."""
        self.status = WorkerStatus(
            revision=self.record.revision,
            state=state,
            launch_ns=self.record.launch_ns,
            address=address,
            pid=running.pid if running else 0,
            container=running.container if running else "",
            confinement=running.confinement if running else "",
            since=time.time(),
            restarts=self._restarts.count,
            chunked=self._chunked,
            public_port=self._public_port(running),
            message=message or (self.status.message if state == "running" else ""),
            bound=bound or (self.status.bound if state == "running" else ""),
        )
        self._changed(state)

    def _public_port(self, running: Running | None) -> int:
        """Where clients come that are sent to the worker itself."""
        if running is None or not self._place.spec.redirect:
            return 0
        return next((each.port for each in running.addresses if each.port and not each.netns_pid), 0)


def _usage(running: Running) -> Usage | None:
    return running.usage() or (tree_usage(running.pid) if running.pid else None)


def _stop_started(starting: Future[Running]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        starting.result().stop(0.0)


def _with(words: str, last_words: str) -> str:
    return f"{words}: {last_words}" if last_words and last_words not in words else words
