"""What Linux says of memory, read from files as it writes them."""

import math

from services.chassis import memory


def written(folder, **files):
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder / "meminfo", folder


def test_the_tighter_of_machine_and_group_counts_and_cached_files_are_free(tmp_path):
    meminfo, group = written(tmp_path, meminfo="MemTotal:  9000 kB\nMemAvailable:     4000 kB\n")
    assert memory.available(meminfo, group) == 4000 * 1024
    written(tmp_path, memory__max="max\n", memory__current="1000000\n")
    assert memory.available(meminfo, group) == 4000 * 1024
    written(tmp_path, memory__max="2000000\n", memory__stat="anon 7\ninactive_file 500000\n")
    assert memory.available(meminfo, group) == 1_500_000
    written(tmp_path, memory__current="9000000\n")
    assert memory.available(meminfo, group) == 0


def test_where_nothing_is_known_nothing_is_refused(tmp_path):
    assert math.isinf(memory.available(tmp_path / "none", tmp_path))
    assert memory.available() > 1 << 20
