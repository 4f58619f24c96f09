"""The graph of what an agent can do in a simple MiniGrid world, and how far each state is from a goal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minigrid.core.constants import DIR_TO_VEC
from minigrid.core.grid import Grid

from allenact.errors import TaskError

if TYPE_CHECKING:
    import networkx as nx

GridState = tuple[int, int, int]  # x, y, direction: 0 right, 1 down, 2 left, 3 up

GOAL_NODE = "unified_goal"  # joined to every state that stands on a goal
_DISTANCES = "distance_to_goal"  # graph attribute in which `distances_to_goal` keeps its answer


def neighbors(state: GridState) -> dict[str, GridState]:
    """Returns action -> the state it leads to, if nothing is in the way."""
    x, y, direction = state
    dx, dy = DIR_TO_VEC[direction]
    return {
        "left": (x, y, (direction - 1) % 4),
        "right": (x, y, (direction + 1) % 4),
        "forward": (x + int(dx), y + int(dy), direction),
    }


def state_graph(grid: Grid) -> nx.DiGraph:
    """Returns the graph of a grid.

    Nodes are (x, y, direction) for every empty or goal cell, and "unified_goal", to which every state on a
    goal is joined. Each other edge is one `left`, `right` or `forward`; none leads onto lava.

    Raises:
        TaskError: the grid holds something else than empty cells, walls, lava and goals.
    """
    import networkx as nx

    kinds = {(x, y): _cell_kind(grid.get(x, y)) for x in range(grid.width) for y in range(grid.height)}
    strange = sorted(set(kinds.values()) - {"empty", "wall", "goal", "lava"})
    if strange:
        raise TaskError(
            "the shortest-path expert only knows grids of empty cells, walls, lava and goals.",
            given=f"a grid that also holds: {', '.join(strange)}",
            do="override query_expert in a subclass of MiniGridTask, or use BabyAITask and its bot.",
        )
    free = [cell for cell, kind in kinds.items() if kind in ("empty", "goal")]
    graph = nx.DiGraph()
    graph.add_node(GOAL_NODE)
    for x, y in free:
        for state in [(x, y, direction) for direction in range(4)]:
            for neighbor in neighbors(state).values():
                if kinds.get(neighbor[:2]) in ("empty", "goal"):
                    graph.add_edge(state, neighbor)
            if kinds[x, y] == "goal":
                graph.add_edge(state, GOAL_NODE)
    return graph


def distances_to_goal(graph: nx.DiGraph) -> dict[GridState, int]:
    """Returns, for every state that can reach a goal, the number of actions needed; kept with the graph."""
    if _DISTANCES not in graph.graph:
        import networkx as nx

        lengths = nx.single_source_shortest_path_length(graph.reverse(copy=False), GOAL_NODE)
        # The goal node is one edge behind the states on a goal.
        graph.graph[_DISTANCES] = {state: n - 1 for state, n in lengths.items() if state != GOAL_NODE}
    distances: dict[GridState, int] = graph.graph[_DISTANCES]
    return distances


def _cell_kind(cell: Any) -> str:
    return "empty" if cell is None else cell.type
