"""The workers of a study on a Ray cluster: who is asked, who is ready, and what is done when one is lost.

Workers come as they are ready, and go with their nodes; the study never waits for one that is not there.
"""

from __future__ import annotations

import time
from pathlib import Path

from finestep.cluster.cargo import Cargo, CargoDamaged
from finestep.cluster.node import NodeWorker, Told
from finestep.cluster.places import MOST_HOME_BYTES, Cluster, Place, Reference, lost_cluster
from finestep.cluster.same_everywhere import description, study_files
from finestep.cluster.trials import Member, Trials
from finestep.errors import BadInput
from finestep.executors.process import error_from
from finestep.executors.spoken import Line
from finestep.protocol import Event, SessionRequest
from finestep.ready import Ready

WAIT_S, LONG_POLL_S = 0.5, 2.0
LOOK_FOR_NODES_S = 30.0
TRY_AGAIN_S = 5.0
"""Right after a loss Ray may still send an actor to the node that is gone."""
MOST_TRIES = 3
NO_NODE_S = 60.0
"""A study without any node waits so long for one."""
GATHER_S = 0.02
"""A worker gathers its steps so long for each worker that there is: all together answer at most fifty times a second."""
FEW = 8
"""So many workers tell the study every step. Of more it hears the newest of each trial; all are on disk."""
DAMAGED_TRIES = 3
ANSWER_S = 30.0


class Crew:
    """The workers of one study.

    Args:
        line: where events are told.
    """

    def __init__(self, request: SessionRequest, cluster: Cluster, line: Line):
        self._request, self._cluster, self._line = request, cluster, line
        self.trials = Trials(line, get=self._part)
        self._members: list[Member] = []
        self._tries: dict[Place, tuple[int, float]] = {}
        self._left_out: dict[Place, str] = {}
        self._plans: dict[int, str] = {}
        self._files: Reference = None
        self._own: dict[str, str] = {}
        self._looked, self._had_member = 0.0, time.monotonic()
        self._has_told = False

    @property
    def is_done(self) -> bool:
        """True when an end is asked for and every trial has had its own."""
        trials = self.trials
        return trials.is_stopping and not trials.waiting and not any(member.open for member in self._members)

    def hire(self) -> None:
        """Ask for an actor in every place of the cluster that has none, up to the number that is wanted."""
        self._looked = now = time.monotonic()
        places = self._cluster.places()
        most = self._cluster.asked.workers or len(places)
        taken = {member.place for member in self._members}
        for place in places:
            tries, last = self._tries.get(place, (0, 0.0))
            is_soon = tries and now - last < TRY_AGAIN_S
            if place in taken or place in self._left_out or is_soon or tries >= MOST_TRIES:
                continue
            if len(self._members) >= most:
                return
            self._tries[place] = (tries + 1, now)
            name = Path(self._request.study_dir).resolve().name
            actor = self._cluster.actor(NodeWorker, place, name, MOST_HOME_BYTES)
            pending = actor.describe.remote(self._request.model.path)
            self._members.append(Member(place, actor, "describe", pending))

    def look(self) -> None:
        """Wait a moment for what is new, and answer it.

        Raises:
            FinestepError: the study cannot go on here.
        """
        self._check_anybody()
        if time.monotonic() - self._looked > (LOOK_FOR_NODES_S if self._members else TRY_AGAIN_S):
            self.hire()
        pending = {member.pending: member for member in self._members}
        if not pending:
            time.sleep(WAIT_S)
            return
        wait, every = self._cluster.ray.wait, list(pending)
        if wait(every, num_returns=1, timeout=WAIT_S)[0]:
            for reference in wait(every, num_returns=len(every), timeout=0)[0]:
                self._answer(pending[reference], reference)
        self.trials.hand_out(self._members)

    def stop_trial(self, number: int) -> None:
        """End a trial with what it has shown."""
        self.trials.stop_trial(number, self._members)

    def stop(self) -> None:
        """Ask for checkpoints and an end."""
        self.trials.stop()
        for member in self._members:
            member.actor.stop.remote()

    def end(self) -> None:
        """End all actors, and leave nothing on their nodes where they can still be reached."""
        ends = [member.actor.end.remote() for member in self._members if member.stage == "poll"]
        if ends:
            self._cluster.ray.wait(ends, num_returns=len(ends), timeout=TRY_AGAIN_S)

    # ---- from nothing to ready

    def _check_anybody(self) -> None:
        if self._members:
            self._had_member = time.monotonic()
        elif self._left_out and not self._has_told:
            words = "; ".join(self._left_out.values())
            raise BadInput("no node of the cluster agrees with this machine", value=words)
        elif time.monotonic() - self._had_member > NO_NODE_S:
            why = "no node is left that can train" if self._has_told else "no node offers a CPU or a GPU for work"
            raise lost_cluster(self._cluster.asked.address, why)

    def _described(self, member: Member, found: dict[str, str]) -> None:
        own = self._own = self._own or description(self._request)
        differ = [
            f"{name.removeprefix('version_')} is {found.get(name, 'missing')[:12]} there and {own[name][:12]} here"
            for name in own
            if found.get(name) != own[name]
        ]
        if differ:
            self._leave_out(member, ", ".join(differ))
            return
        self._files = self._files or self._cluster.ray.put(study_files(self._request))
        session, plan = self._request.model_dump_json(), self._plans.get(member.place.num_cpus)
        member.stage, member.pending = "start", member.actor.start.remote(session, self._files, plan)

    def _started(self, member: Member, found: tuple[str, str | None]) -> None:
        event, plan = Event.model_validate_json(found[0]), found[1]
        if event.kind == "died":
            self._lose(member, str(event.data.get("reason")))
        elif event.kind == "error":
            if not self._has_told and all(other.stage != "poll" for other in self._members):
                raise error_from(event.data)
            self._leave_out(member, str(event.data.get("text")))
        else:
            if plan is not None:
                self._plans[member.place.num_cpus] = plan
            member.ready, member.stage = Ready.model_validate(event.data), "poll"
            self._tries.pop(member.place, None)
            self._tell_room()
            self._poll(member)

    def _tell_room(self) -> None:
        """`ready`, and again whenever there is more or less room than before."""
        ready = [member.ready for member in self._members if member.ready is not None and member.stage == "poll"]
        if not ready:
            return
        at_once, nodes = sum(one.sharing.at_once for one in ready), {member.place.node for member in self._members}
        sharing = ready[0].sharing.model_copy(
            update={
                "num_workers": max(1, round(at_once / ready[0].sharing.num_lanes)),
                "workers_why": f"{len(nodes)} node{'s' if len(nodes) > 1 else ''} of the cluster",
            }
        )
        self._line.send("ready", ready[0].model_copy(update={"sharing": sharing}))
        if not self._has_told:  # nobody listens before the first `ready`
            for words in self._left_out.values():
                self._line.send("note", {"text": f"left out: {words}"})
        self._has_told = True

    # ---- what a worker answers

    def _answer(self, member: Member, reference: Reference) -> None:
        try:
            found = self._cluster.ray.get(reference, timeout=ANSWER_S)
        except self._cluster.ray.exceptions.RayError as error:
            self._unreached(member, error)
            return
        member.since = None
        match member.stage:
            case "describe":
                self._described(member, found)
            case "start":
                self._started(member, found)
            case _:
                self._told(member, found)

    def _poll(self, member: Member) -> None:
        gather_s = min(GATHER_S * len(self._members), LONG_POLL_S)
        member.pending = member.actor.poll.remote(member.heard, LONG_POLL_S, gather_s)

    def _told(self, member: Member, found: list[Told]) -> None:
        """Take up what a worker has told, and ask it again; what was taken up is acknowledged by that."""
        self.trials.tells_every_step = len(self._members) <= FEW
        is_there = self._take_up_all(member, found)
        self.trials.write_steps()
        if is_there:
            self._poll(member)

    def _take_up_all(self, member: Member, found: list[Told]) -> bool:
        """False when the worker is lost by what it told."""
        for number, text, files in found:
            if number <= member.heard:
                continue
            try:
                self._take_up(member, Event.model_validate_json(text), files)
            except (CargoDamaged, self._cluster.ray.exceptions.RayError) as fault:
                member.damaged += 1
                if member.damaged >= DAMAGED_TRIES:
                    self._lose(member, f"its files do not arrive: {fault}")
                    return False
                break  # not acknowledged: it is told again
            if member not in self._members:
                return False
            member.heard, member.damaged = number, 0
        return True

    def _take_up(self, member: Member, event: Event, files: Cargo) -> None:
        if event.kind == "died":
            self.trials.worker_died(member, str(event.data.get("reason")))
        elif event.kind == "error":
            self._leave_out(member, str(event.data.get("text")))
            if not self._members:
                raise error_from(event.data)
        else:
            self.trials.take_up(member, event, files)

    def _unreached(self, member: Member, error: BaseException) -> None:
        """A call that found no answer: the same again for a while where it may be the network, else the end of this worker."""
        member.since = member.since or time.monotonic()
        is_blip = self._cluster.is_blip(error) and member.stage == "poll"
        if is_blip and time.monotonic() - member.since < self._cluster.asked.grace_s:
            time.sleep(WAIT_S)
            self._poll(member)
            return
        self._lose(member, self._cluster.why_lost(error))

    def _lose(self, member: Member, why: str) -> None:
        """A worker is gone, with its node or alone; its trials wait for another."""
        self._members.remove(member)
        self._cluster.ray.kill(member.actor)
        self._tries[member.place] = (self._tries.get(member.place, (1, 0.0))[0], time.monotonic())
        self.trials.lost(member, why)
        self._tell_room()

    def _leave_out(self, member: Member, why: str) -> None:
        """This place cannot serve the study, and is not asked again."""
        self._left_out[member.place] = f"{member.place.name}: {why}"
        if self._has_told:
            self._line.send("note", {"text": f"left out: {self._left_out[member.place]}"})
        self._lose(member, why)

    def _part(self, reference: object) -> bytes:
        part: bytes = self._cluster.ray.get(reference, timeout=2 * NO_NODE_S)
        return part
