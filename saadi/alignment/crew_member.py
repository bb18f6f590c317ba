"""A process that helps with an alignment job: `python -m saadi.alignment.crew_member HOME JOB RANK SIZE MEETING`.

It reads the same frozen order from the same store as the job's own process, which starts it, and writes nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

from saadi import devices
from saadi.alignment import job
from saadi.alignment.crew import READY, REFUSED, Member, end_with_the_leader, say
from saadi.config import Home
from saadi.errors import SaadiError
from saadi.store import Store


def main(home: str, job_id: str, rank: str, size: str, meeting: str) -> None:
    """Compute shares of steps until the leader ends."""
    end_with_the_leader()
    devices.use_all_threads()
    try:
        with devices.memory_told(job.MEMORY_ADVICE):
            member = Member(int(rank), int(size), Path(meeting))
            with Store.open(Home(Path(home))) as store:
                trainer = job.trainer_of(store, store.job(int(job_id)).params, member)
            say(READY)
            member.join()
            trainer.follow()
    except SaadiError as error:
        say(f"{REFUSED}{error}")
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
