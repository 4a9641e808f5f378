"""Partners for stage 2: for each pair, other pairs that show one of its entities.

Files: `partners.npy` uint32 [M, P], row numbers of the index; `partner_entities.npy` uint16
[M, P], the entity that pair and partner share. Both are plain arrays to be memory-mapped; where a
pair has no partner (nobody else shows its entities), the row holds `NOBODY`.

Each slot first draws one of the pair's entities with probability inverse to how often it occurs,
so that rare entities are seen, then a partner among all pairs with that entity. Slots of one pair
draw from separate parts of that list, so that a partner comes twice only where there are few.
The draws are a hash of (seed, row, slot): the same on any machine, in any order, with any version
of numpy.
"""

import numpy as np
import numpy.typing as npt

from ovseg.data.splitmix import uniform
from ovseg.data.store import Address, FolderStore, Store, open_store
from ovseg.errors import DataError

PARTNERS, SHARED_ENTITIES = "partners.npy", "partner_entities.npy"
NOBODY = np.uint32(0xFFFFFFFF)
NO_ENTITY = np.uint16(0xFFFF)
BLOCK = 1 << 17  # rows drawn at a time

Counts = npt.NDArray[np.int64]


class EntityLists:
    """Which pairs show which entity, both ways, as offsets into flat arrays (CSR).

    `offsets` [M+1] and `entities` [T] list each pair's distinct entities; `rows` [T] lists the
    pairs by entity, entity `e` from `starts[e]` on.
    """

    def __init__(self, offsets: np.ndarray, entities: np.ndarray, entity_count: int) -> None:
        self.offsets = offsets.astype(np.int64)
        self.entities = entities.astype(np.int64)
        if len(entities) and entities.max() >= entity_count:
            raise DataError("the index names an entity that entities.toml does not have")
        self.counts = np.bincount(self.entities, minlength=entity_count)
        self.starts = np.concatenate([[0], np.cumsum(self.counts)])
        row_of = np.repeat(np.arange(len(offsets) - 1, dtype=np.uint32), np.diff(self.offsets))
        order = np.argsort(self.entities, kind="stable")
        self.rows = row_of[order]
        # Where each (pair, entity) stands in its entity's list: the pair is not its own partner.
        self.place = np.empty(len(order), np.int64)
        self.place[order] = np.arange(len(order)) - self.starts[self.entities[order]]

    def __len__(self) -> int:
        return len(self.offsets) - 1


def draw_partners(
    lists: EntityLists, first: int, last: int, slots: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Partners uint32 and shared entities uint16, both [last - first, slots], of these rows."""
    rows = np.arange(first, last)
    partners = np.full((len(rows), slots), NOBODY)
    shared = np.full((len(rows), slots), NO_ENTITY)
    total = _rarity(lists, first, last)  # [T' + 1]
    begin = lists.offsets[first]
    low, high = (total[lists.offsets[rows + step] - begin] for step in (0, 1))  # [R]
    possible = high > low
    rows, low, high = rows[possible], low[possible, None], high[possible, None]
    draws = np.stack([uniform(seed, rows, slot) for slot in range(slots)], axis=1)  # [R, P]
    # Kept below the row's end against rounding, a draw always falls on an entity with a weight.
    draws = np.minimum(low + draws * (high - low), np.nextafter(high, low))
    chosen = np.searchsorted(total, draws, side="right") - 1 + begin  # [R, P]
    partners[possible] = _draw_others(lists, chosen, rows, seed)
    shared[possible] = lists.entities[chosen]
    return partners, shared


def _rarity(lists: EntityLists, first: int, last: int) -> npt.NDArray[np.float64]:
    """Running sum, over the entities of these rows, of their weights: 1 / count, 0 where alone."""
    part = lists.entities[lists.offsets[first] : lists.offsets[last]]
    counts = lists.counts[part]
    return np.concatenate([[0.0], np.cumsum(np.where(counts > 1, 1.0 / counts, 0.0))])


def _draw_others(
    lists: EntityLists, chosen: np.ndarray, rows: np.ndarray, seed: int
) -> npt.NDArray[np.uint32]:
    """A pair other than itself from the list of each chosen entity; [R, P]."""
    slots = chosen.shape[1]
    entity = lists.entities[chosen]
    others = lists.counts[entity] - 1
    shift = uniform(seed, rows, 2 * slots)[:, None]
    within = np.stack([uniform(seed, rows, slots + slot) for slot in range(slots)], axis=1)
    slot = np.arange(slots)
    low, high = slot * others // slots, (slot + 1) * others // slots
    drawn = low + (within * np.maximum(high - low, 1)).astype(np.int64)
    drawn = (drawn + (shift * others).astype(np.int64)) % others
    drawn += drawn >= lists.place[chosen]  # step over the pair itself
    return lists.rows[lists.starts[entity] + drawn]


def write_partners(lists: EntityLists, address: Address, slots: int, seed: int) -> None:
    """Draw all partners, block by block, into the two files; there must be a pair."""
    store = open_store(address)
    with (
        store.writing(PARTNERS) as rows_path,
        store.writing(SHARED_ENTITIES) as shared_path,
    ):
        shape = (len(lists), slots)
        rows = np.lib.format.open_memmap(rows_path, "w+", np.uint32, shape)
        shared = np.lib.format.open_memmap(shared_path, "w+", np.uint16, shape)
        for first in range(0, len(lists), BLOCK):
            last = min(first + BLOCK, len(lists))
            rows[first:last], shared[first:last] = draw_partners(lists, first, last, slots, seed)
        rows.flush()
        shared.flush()


def read_partners(store: Store) -> tuple[np.ndarray, np.ndarray]:
    """Partners uint32 and shared entities uint16, both [M, P]; mapped where the files are here.

    What they name is not checked: whoever follows it does.

    Raises:
        FileNotFoundError: there are none.
        DataError: they are damaged.
    """
    rows = _load(store, PARTNERS, np.uint32)
    shared = _load(store, SHARED_ENTITIES, np.uint16)
    if rows.shape != shared.shape or rows.ndim != 2 or not rows.shape[1]:
        raise DataError(f"{store}/{PARTNERS} is damaged (shapes {rows.shape}, {shared.shape})")
    return rows, shared


def _load(store: Store, name: str, kind: type[np.generic]) -> np.ndarray:
    with store.local_path(name) as path:
        try:
            # Mapped, a file cannot claim more than it holds.
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # damaged headers fail in many ways
            raise DataError(f"{store}/{name} is damaged ({error}): build it again") from error
        if not isinstance(mapped, np.ndarray) or mapped.dtype != kind:
            raise DataError(f"{store}/{name} is damaged: it holds something else; build it again")
        return mapped if isinstance(store, FolderStore) else np.array(mapped)
