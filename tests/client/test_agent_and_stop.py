"""The agent and `session stop` work on one folder: what one of them has ended, the other leaves alone."""

from __future__ import annotations

from .world import World, run_virtually


def test_nobody_is_asked_about_a_session_whose_end_another_command_saw() -> None:
    async def story() -> None:
        world = World()
        await world.boot()
        view = await world.begin()
        assert (await world.sessions.end(view.session)).closed
        agent = world.client_of()  # the same folder, another process
        world.server_away = True
        await agent.cosign(view.session)
        await world.kill()

    run_virtually(story())
